# SPDX-License-Identifier: Apache-2.0
"""The same run with several seeds: a figure comes with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from fedcpsc.runs.result import RunResult
from fedcpsc.runs.seeds import FigureOfSeeds, best_teacher, figure_of_seeds

__all__ = ["SeedsSummary", "summarise"]


class SeedsSummary(TypedDict):
    """Content of `<name>-seeds.json`.

    Attributes:
        name: name of the run, without the seed.
        seeds: seeds of the runs.
        student, ensemble, best_teacher: accuracies, in [0, 1].
        seconds: seconds of the whole run.
        versions: versions of Python and of what a run stands on.
        commit: commit of the source; None where it had none.
    """

    name: str
    seeds: list[int]
    student: FigureOfSeeds
    ensemble: FigureOfSeeds
    best_teacher: FigureOfSeeds
    seconds: FigureOfSeeds
    versions: dict[str, str]
    commit: str | None


def summarise(name: str, results: Sequence[RunResult]) -> SeedsSummary:
    """Mean, sample standard deviation and values of each figure, as `<name>-seeds.json` holds them.

    Args:
        name: name of the run, without the seed.
        results: results of the runs, one a seed, at least one. A figure that any of them lacks is None throughout; the
            deviation of a single value is None.
    """
    return {
        "name": name,
        "seeds": [result["seed"] for result in results],
        "student": figure_of_seeds([result["student"]["accuracy"] for result in results]),
        "ensemble": figure_of_seeds([result["ensemble"]["accuracy"] for result in results]),
        "best_teacher": figure_of_seeds([best_teacher(result) for result in results]),
        "seconds": figure_of_seeds([result["seconds"]["total"] for result in results]),
        "versions": results[0]["versions"],
        "commit": results[0]["commit"],
    }
