# SPDX-License-Identifier: Apache-2.0
"""What students and ensembles reach."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.markdown import read, spread, table

__all__ = [
    "ablation",
    "accuracy",
    "adjusted",
    "aggregation",
    "disjoint",
    "domains",
    "dp_sgd",
    "estimates",
    "fits",
    "label_sets",
    "lightness",
    "lightness_runs",
    "outliers",
    "photographs",
    "precision",
    "priors",
    "shard_votes",
    "unlabelled",
    "unlabelled_skewed",
]

_LABEL_SETS = " label sets, "  # in the names of settings that have a table of their own


def accuracy() -> list[str]:
    """Accuracy per answer, one set of data after the other."""
    rows = [row for row in read("accuracy_per_answer.json") or [] if _LABEL_SETS not in row["setting"]]
    return accuracy_table(sorted(rows, key=lambda row: row["setting"].split()[0].lower()))


def domains() -> list[str]:
    """One recipe on pictures of many kinds, with the minutes of a whole run on one core."""
    rows = sorted(read("domains.json") or [], key=lambda row: -row["mean"])
    return table(
        "pictures | silos | answers | best single teacher | ensemble | **student** | short of it by | minutes | seeds",
        (
            (
                *_reached(row),
                f"{row['ensemble'] - row['mean']:.1f}",
                f"{row['seconds'] / 60:.0f}",
                f"{len(row['seeds'])}",
            )
            for row in rows
        ),
    )


def adjusted() -> list[str]:
    """What class biases bring that silos' counts on held-out images tell."""
    rows = sorted(read("adjusted.json") or [], key=lambda row: -row["mean"])
    return table(
        "pictures | silos | answers | ensemble | student as fitted | **class biases shifted** | seeds",
        (
            (
                row["setting"].removesuffix(", evaluated by class"),
                f"{row['silos']}",
                f"{row['answers']:,}",
                f"{row['ensemble']:.1f}",
                spread(*row["before_adjustment"]),
                f"**{spread(row['mean'], row['std'])}**",
                f"{len(row['seeds'])}",
            )
            for row in rows
        ),
    )


def unlabelled() -> list[str]:
    """What class biases bring that are fitted to unlabelled pictures."""
    rows = sorted(read("unlabelled.json") or [], key=lambda row: -row["accuracy"][0])
    cases = ("20 pictures", "50 pictures", "200 pictures")
    return table(
        "pictures | answers | student as fitted | 20 unlabelled pictures | 50 | **200** | seeds",
        (
            (
                row["setting"],
                f"{row['answers']:,}",
                _over_seeds(row, row["accuracy"]),
                *(_over_seeds(row, row["cases"][case]["after"]) for case in cases[:2]),
                f"**{_over_seeds(row, row['cases'][cases[2]]['after'])}**",
                f"{len(row['seeds'])}",
            )
            for row in rows
        ),
    )


def _over_seeds(row: dict[str, Any], figure: list[float]) -> str:
    """Mean and standard deviation; of one seed, which has none, the value alone."""
    return spread(*figure) if len(row["seeds"]) > 1 else f"{figure[0]:.1f}"


def unlabelled_skewed() -> list[str]:
    """The same where classes are not equally frequent: told, and not told."""
    rows = sorted(read("unlabelled.json") or [], key=lambda row: -row["accuracy"][0])
    kinds = ("taken for even", "shares stated")
    names = [f"200 pictures, Dirichlet {alpha}, {kind}" for alpha in (3, 1) for kind in kinds]
    return table(
        "pictures | Dirichlet 3: taken for even | shares stated | Dirichlet 1: taken for even | shares stated",
        (
            (
                row["setting"],
                *(f"{row['cases'][name]['before'][0]:.1f} to {row['cases'][name]['after'][0]:.1f}" for name in names),
            )
            for row in rows
        ),
    )


def estimates() -> list[str]:
    """What tells a student's accuracy without test images, and how well."""
    measured = read("estimates.json") or {"found": []}
    keys = ("rank_runs", "rank_kinds", "rank_share")
    rows = [
        (one["quantity"], *(f"{one[key]:.2f}" for key in keys), f"{one['error']:.1f}", f"{one['error_share']:.1f}")
        for one in measured["found"]
    ]
    if rows:
        guesses = (f"{measured[key]:.1f}" for key in ("guessed", "guessed_share"))
        rows.append(("nothing: the other kinds' mean", "-", "-", "-", *guesses))
    columns = (
        "what the server sees",
        "rank correlation with accuracy, runs",
        "kinds",
        "with the share, runs",
        "error, accuracy",
        "error, share",
    )
    return table(" | ".join(columns), rows)


def dp_sgd() -> list[str]:
    """The same, of the settings whose teachers are trained by DP-SGD."""
    return accuracy_table([row for row in read("accuracy_per_answer.json") or [] if "DP-SGD" in row["setting"]])


def disjoint() -> list[str]:
    """The same, of silos that share no class."""
    return accuracy_table([row for row in read("accuracy_per_answer.json") or [] if " apart, " in row["setting"]])


def label_sets() -> list[str]:
    """The same, of silos whose classes overlap."""
    return accuracy_table([row for row in read("accuracy_per_answer.json") or [] if _LABEL_SETS in row["setting"]])


def outliers() -> list[str]:
    """What an output for "none of mine" costs or brings where silos share classes."""
    return accuracy_table(read("outliers.json") or [])


def lightness() -> list[str]:
    """What answers tell about images by their lightness, and what a run would find."""
    rows = (read("lightness.json") or {"rows": {}})["rows"]
    shown = [*next(iter(rows.values()))["told"]] if rows else []
    return table(
        " | ".join(
            ("images of the silos, mean of their pixels", *(f"told at {at}" for at in shown), "found", "scatter")
        ),
        (
            (
                f"{name}, {row['pixels']:.2f}",
                *(f"{told:.2f}" for told in row["told"].values()),
                f"**{row['mean']:.2f} +- {row['mean_std']:.2f}**",
                f"{row['spread']:.2f}",
            )
            for name, row in rows.items()
        ),
    )


def lightness_runs() -> list[str]:
    """What students lose where the lightness is not known, or said wrongly, and what finding it brings."""
    return accuracy_table(read("lightness_runs.json") or [])


def photographs() -> list[str]:
    """What real pictures bring that are not the silos', beside the same run without any."""
    rows = read("accuracy_per_answer.json") or []
    return accuracy_table([row for row in rows if row["setting"].startswith("CIFAR-10 16x16, ") and row["silos"] == 1])


def accuracy_table(rows: list[dict[str, Any]]) -> list[str]:
    """One line a setting."""
    return table(
        "setting | silos | answers | best single teacher | ensemble | **student** | seeds",
        ((*_reached(row), f"{len(row['seeds'])}") for row in rows),
    )


def _reached(row: dict[str, Any]) -> tuple[str, ...]:
    """Cells of a setting: what it is, and what teachers, ensemble and student reach."""
    return (
        row["setting"],
        f"{row['silos']}",
        f"{row['answers']:,}",
        f"{row['teacher']:.1f}",
        f"{row['ensemble']:.1f}",
        f"**{spread(row['mean'], row['std'])}**",
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


def fits() -> list[str]:
    """What other fits make of the same answers."""
    return ablation_table("the same answers, validation images", "ablation_fits.json")


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
