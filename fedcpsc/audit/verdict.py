# SPDX-License-Identifier: Apache-2.0
"""What an audit says, in plain words: the claims it refuted, did not contradict, could not test; and who leaks what."""

from __future__ import annotations

from collections.abc import Iterable

from fedcpsc.audit.claims import NOT_CONTRADICTED, NOT_TESTED, REFUTED, outcome_in_words
from fedcpsc.audit.figures import AuditRow, Bound, Findings, Verdict

__all__ = ["judge", "strongest"]


def judge(audit: Findings) -> Verdict:
    """`{"violation": bool, "testable": bool, "text": ...}` of an audit's rows and bounds.

    A violation is a lower bound on epsilon above a claimed epsilon. That none was found proves nothing: an attack that
    fails shows that this attack fails. `testable` is whether every claim could have been refuted: where one could not,
    the text says so before anything of the other claims, and no violation is said to be missing.

    Args:
        audit: content of `audit.json`, without verdict and plots.
    """
    claims = [bound for bound in audit["bounds"] if bound["claimed_epsilon"] is not None]
    text = []
    for outcome, opening in ((REFUTED, "VIOLATION"), (NOT_TESTED, "NOT TESTED")):
        text += [f"{opening}: {_sentence_of(bound)}." for bound in claims if bound["outcome"] == outcome]
    if held := [_sentence_of(bound) for bound in claims if bound["outcome"] == NOT_CONTRADICTED]:
        text.append(f"No attack contradicts these claims, which this audit could have refuted: {'; '.join(held)}.")
    if not claims:
        text.append("Nothing with a claim was compared with a bound.")
    text += [_sentence(row) for row in strongest(audit["rows"])]
    text.append("What no attack here found may still be found by another.")
    return {
        "violation": any(bound["violated"] for bound in claims),
        "testable": all(bool(bound["testable"]) for bound in claims),
        "text": " ".join(text),
    }


def _sentence_of(bound: Bound) -> str:
    return f"{bound['policy']}, {bound['surface']}: {outcome_in_words(bound)}"


def strongest(rows: Iterable[AuditRow]) -> list[AuditRow]:
    """Of each policy and surface the attack with the highest TPR at the least FPR that all share, as they were asked.

    Where a student was fitted to several numbers of answers, only the largest is looked at. For telling, not for
    bounds: which attack is the strongest was found by looking.
    """
    best: dict[tuple[str, str], AuditRow] = {}
    for row in rows:
        key = (row["policy"], row["surface"])
        if key not in best or _rank(row) > _rank(best[key]):
            best[key] = row
    return list(best.values())


def _rank(row: AuditRow) -> tuple[int, float]:
    return row["answers"] or 0, max(row["tpr_at"].items(), key=lambda item: float(item[0]))[1]


def _sentence(row: AuditRow) -> str:
    fpr, tpr = max(row["tpr_at"].items(), key=lambda item: float(item[0]))
    times = tpr / float(fpr)
    return (
        f"{row['policy']}, {row['surface']}: {row['attack']} finds {tpr:.1%} of the members while it accuses "
        f"{float(fpr):.1%} of the others wrongly ({times:.1f} times chance; AUC {row['auc']:.3f})."
    )
