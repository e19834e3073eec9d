# SPDX-License-Identifier: Apache-2.0
"""The same run with several seeds: a figure comes with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict

from fedcpsc.runs.result import RunResult

__all__ = ["FigureOfSeeds", "SeedsSummary", "summarise"]


class FigureOfSeeds(TypedDict):
    """One figure over seeds.

    Attributes:
        mean, std: mean and sample standard deviation; None where a value is missing, the deviation also of one value.
        values: value of each seed, in the order of the seeds.
    """

    mean: float | None
    std: float | None
    values: list[float | None]


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
        "student": _figure([result["student"]["accuracy"] for result in results]),
        "ensemble": _figure([result["ensemble"]["accuracy"] for result in results]),
        "best_teacher": _figure([_best_teacher(result) for result in results]),
        "seconds": _figure([result["seconds"]["total"] for result in results]),
        "versions": results[0]["versions"],
        "commit": results[0]["commit"],
    }


def _figure(values: list[float | None]) -> FigureOfSeeds:
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "mean": statistics.fmean(known) if whole else None,
        "std": statistics.stdev(known) if whole and len(known) > 1 else None,
        "values": values,
    }


def _best_teacher(result: RunResult) -> float | None:
    known = [silo["teacher_accuracy"] for silo in result["silos"] if silo["teacher_accuracy"] is not None]
    return max(known, default=None)
