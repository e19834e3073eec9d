"""What an audit says, in plain words: a violation, or that none was found, and how much leaked to whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["judge", "strongest"]


def judge(audit: dict[str, Any]) -> dict[str, Any]:
    """`{"violation": bool, "text": ...}` of an audit's rows and bounds.

    A violation is a lower bound on epsilon above a claimed epsilon. That none was found proves nothing: an attack that
    fails shows that this attack fails.

    Args:
        audit: as in `audit.json`, without verdict and plots.
    """
    violated = [bound for bound in audit["bounds"] if bound["violated"]]
    held = [bound for bound in audit["bounds"] if bound["claimed_epsilon"] is not None and not bound["violated"]]
    text = []
    for bound in violated:
        text.append(
            f"VIOLATION: {bound['policy']} claims epsilon {bound['claimed_epsilon']:g}, but its {bound['surface']} "
            f"shows at least {bound['epsilon']:.2f} (confidence {bound['confidence']:.1%})."
        )
    if held:
        pairs = ", ".join(
            f"{bound['policy']} {bound['surface']} at least {bound['epsilon']:.2f} of {bound['claimed_epsilon']:g}"
            for bound in held
        )
        text.append(f"No attack contradicts these claims of epsilon: {pairs}.")
    if not violated and not held:
        text.append("Nothing with a claim was held against a bound.")
    text += [_sentence(row) for row in strongest(audit["rows"])]
    text.append("What no attack here found may still be found by another.")
    return {"violation": bool(violated), "text": " ".join(text)}


def strongest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each policy and surface the attack with the highest TPR at the least FPR that all share, as they were asked.

    Where a student was fitted to several numbers of answers, only the largest is looked at. For telling, not for
    bounds: which attack is the strongest was found by looking.
    """
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["policy"], row["surface"])
        if key not in best or _rank(row) > _rank(best[key]):
            best[key] = row
    return list(best.values())


def _rank(row: dict[str, Any]) -> tuple[int, float]:
    return row["answers"] or 0, max(row["tpr_at"].items(), key=lambda item: float(item[0]))[1]


def _sentence(row: dict[str, Any]) -> str:
    fpr, tpr = max(row["tpr_at"].items(), key=lambda item: float(item[0]))
    times = tpr / float(fpr)
    return (
        f"{row['policy']}, {row['surface']}: {row['attack']} finds {tpr:.1%} of the members while it accuses "
        f"{float(fpr):.1%} of the others wrongly ({times:.1f} times chance; AUC {row['auc']:.3f})."
    )
