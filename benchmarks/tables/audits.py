# SPDX-License-Identifier: Apache-2.0
"""What audits found, what they could have found, and how often they would have."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.markdown import read, spread, table
from fedcpsc.audit.reach import guesses_needed, reachable_epsilon

__all__ = ["audit", "found_at_one_percent", "needed", "power", "reach"]

DELTA = 1e-5
GUESSES = (10, 50, 100, 200, 500, 1_000, 10_000)
CLAIMS = (0.5, 1.0, 2.0, 4.0, 8.0)
CONFIDENCES = (0.95, 0.99, 0.995)  # one claim; five silos' teachers; their students too


def audit() -> list[str]:
    """What attacks found, and the bounds beside the claims."""
    report = read("audit_digits.json") or {"strongest": []}
    rows = []
    for policy, surface, attack in report["strongest"]:
        row = _last_row(report, policy, surface, attack)
        model = next(m for m in report["models"] if all(m[k] == row[k] for k in ("policy", "surface", "answers")))
        bound = next(b for b in report["bounds"] if (b["policy"], b["surface"]) == (policy, surface))
        claim = bound["claimed_epsilon"]
        rows.append(
            (
                policy,
                surface,
                spread(100 * model["accuracy"]["mean"], 100 * model["accuracy"]["std"]),
                f"`{attack}`",
                f"{row['auc']:.3f}",
                f"{100 * row['tpr_at']['0.01']:.1f} %",
                f"{100 * row['tpr_at']['0.001']:.1f} %",
                f"{bound['epsilon']:.2f}",
                f"{bound['reachable_epsilon']:.2f}",
                "-" if claim is None else f"{claim:g} per {bound['claimed_unit']}: {bound['outcome']}",
            )
        )
    header = "policy | surface | accuracy | attack | AUC | TPR at 1 % | TPR at 0.1 % | epsilon at least | of at most"
    return table(f"{header} | claimed", rows)


def found_at_one_percent() -> list[str]:
    """Training records that an attacker recognises while it takes 1 % of the others for such."""
    report = read("audit_digits.json") or {"strongest": []}
    surfaces = (
        ("a teacher's probabilities, 8 bits", "probabilities", "teacher"),
        ("a student fitted to such probabilities", "probabilities", "student"),
        ("a student fitted to labels alone", "label", "student"),
    )
    rows = []
    for words, policy, surface in surfaces if report["strongest"] else ():
        row = _last_row(report, policy, surface, "lira_online")
        rows.append((words, f"{100 * row['tpr_at']['0.01']:.1f} %"))
    return table("the attacker sees | training records recognised at 1 % false alarms", rows)


def reach() -> list[str]:
    """The largest bound on epsilon that so many right guesses make, by how many canaries they are of."""
    header = f"guesses, all right | {' | '.join(f'every canary guessed at, {_confidence(c)}' for c in CONFIDENCES)}"
    rows = []
    for guesses in GUESSES:
        all_guessed = [f"{reachable_epsilon(guesses, guesses, DELTA, c):.2f}" for c in CONFIDENCES]
        rows.append((f"{guesses:,}", *all_guessed, f"{reachable_epsilon(10 * guesses, guesses, DELTA):.2f}"))
    return table(f"{header} | a tenth guessed at, 95 %", rows)


def needed() -> list[str]:
    """How many guesses a claim needs to be refutable at all."""
    rows = []
    for claim in CLAIMS:
        all_guessed = [_number(guesses_needed(claim, DELTA, confidence)) for confidence in CONFIDENCES]
        rows.append((f"{claim:g}", *all_guessed, _number(guesses_needed(claim, DELTA, 0.95, 0.1))))
    header = f"claim | {' | '.join(f'guesses needed, {_confidence(c)}' for c in CONFIDENCES)}"
    return table(f"{header} | a tenth of the canaries guessed at, 95 %", rows)


def power() -> list[str]:
    """How often an audit catches a training that claims epsilon 1 and keeps epsilon 4."""
    report = read("audit_power.json") or {"rows": []}
    return table(
        "canaries | guesses | largest bound | right guesses that refute | caught, truth 4 | accused, truth 1",
        (
            (
                f"{row['canaries']}",
                f"{row['guesses']}",
                f"{row['reachable_epsilon']:.2f}",
                f"{row['least_right']}",
                f"{row['caught']} of {row['repetitions']} ({_range(row['caught_interval'])})",
                f"{row['accused']} of {row['repetitions']}",
            )
            for row in report["rows"]
        ),
    )


def _last_row(report: dict[str, Any], policy: str, surface: str, attack: str) -> dict[str, Any]:
    """Of several numbers of answers, the largest."""
    wanted = [policy, surface, attack]
    same = [row for row in report["rows"] if [row["policy"], row["surface"], row["attack"]] == wanted]
    found: dict[str, Any] = same[-1]
    return found


def _confidence(confidence: float) -> str:
    return f"{100 * confidence:g} %"


def _number(guesses: int | None) -> str:
    return "no number" if guesses is None else f"{guesses:,}"


def _range(interval: list[float]) -> str:
    return f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"
