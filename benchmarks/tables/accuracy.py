"""What students, ensembles and attacks reach."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.markdown import read, spread, table

__all__ = ["ablation", "accuracy", "aggregation", "audit", "dp_sgd", "precision", "priors", "shard_votes"]


def accuracy() -> list[str]:
    """Accuracy per answer."""
    return accuracy_table(read("accuracy_per_answer.json") or [])


def dp_sgd() -> list[str]:
    """The same, of the settings whose teachers are trained by DP-SGD."""
    return accuracy_table([row for row in read("accuracy_per_answer.json") or [] if "DP-SGD" in row["setting"]])


def accuracy_table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a setting."""
    return table(
        "setting | silos | answers | best single teacher | ensemble | **student** | seeds",
        (
            (
                row["setting"],
                f"{row['silos']}",
                f"{row['answers']:,}",
                f"{row['teacher']:.1f}",
                f"{row['ensemble']:.1f}",
                f"**{spread(row['mean'], row['std'])}**",
                f"{len(row['seeds'])}",
            )
            for row in rows
        ),
    )


def ablation() -> list[str]:
    """What each part of the recipe brings."""
    return ablation_table("digits, 2,000 answers, validation images", "ablation.json")


def priors() -> list[str]:
    """What kinds of prior, their steering and the generator's share bring, one set of data after the other."""
    rows = [(*row["setting"].split(", ", 1), row) for row in read("ablation_priors.json") or []]
    return table(
        "validation images | setting | student | seeds",
        (
            (about, setting, spread(row["mean"], row["std"]), f"{len(row['seeds'])}")
            for about, setting, row in sorted(rows, key=lambda found: (found[0].lower(), -found[2]["mean"]))
        ),
    )


def precision() -> list[str]:
    """What reduced precision costs in accuracy."""
    return ablation_table("validation images", "ablation_precision.json")


def ablation_table(about: str, name: str) -> list[str]:
    """One line a setting, the best first."""
    rows = sorted(read(name) or [], key=lambda row: -row["mean"])
    return table(
        f"{about} | student | seeds",
        ((row["setting"], spread(row["mean"], row["std"]), f"{len(row['seeds'])}") for row in rows),
    )


def aggregation() -> list[str]:
    """Aggregation alone: noise, rules, forms."""
    return table(
        "about | setting | ensemble | student | seeds",
        (
            (
                row["about"],
                row["setting"],
                spread(row["ensemble"], row["ensemble_std"]),
                spread(row["student"], row["student_std"]),
                f"{len(row['seeds'])}",
            )
            for row in read("ablation_aggregation.json") or []
        ),
    )


def shard_votes() -> list[str]:
    """What a per-answer privacy budget buys."""
    return table(
        "sigma | epsilon | answers it buys | student | seeds",
        (
            (
                f"{row['sigma']}",
                f"{row['epsilon']:g}",
                f"{row['answers']:,}",
                spread(row["mean"], row["std"]),
                f"{len(row['seeds'])}",
            )
            for row in (read("shard_votes.json") or {"points": []})["points"]
        ),
    )


def audit() -> list[str]:
    """What attacks found, and the bounds beside the claims."""
    report = read("audit_digits.json") or {"strongest": []}
    rows = []
    for policy, surface, attack in report["strongest"]:
        same = [
            row for row in report["rows"] if [row["policy"], row["surface"], row["attack"]] == [policy, surface, attack]
        ]
        row = same[-1]  # of several numbers of answers, the largest
        model = next(m for m in report["models"] if all(m[k] == row[k] for k in ("policy", "surface", "answers")))
        bound = next(b for b in report["bounds"] if (b["policy"], b["surface"]) == (policy, surface))
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
                "-" if bound["claimed_epsilon"] is None else f"{bound['claimed_epsilon']:g}",
            )
        )
    header = "policy | surface | accuracy | attack | AUC | TPR at 1 % | TPR at 0.1 % | epsilon at least | claimed"
    return table(header, rows)
