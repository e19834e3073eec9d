# SPDX-License-Identifier: Apache-2.0
"""One figure over several seeds: mean, spread and each value."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from typing_extensions import TypedDict

from fedcpsc.runs.result import RunResult

__all__ = ["FigureOfSeeds", "best_teacher", "figure_of_seeds"]


class FigureOfSeeds(TypedDict):
    """One figure over seeds.

    Attributes:
        mean, std: mean and sample standard deviation; None where a value is missing, the deviation also of one value.
        values: value of each seed, in the order of the seeds.
    """

    mean: float | None
    std: float | None
    values: list[float | None]


def figure_of_seeds(values: Sequence[float | None]) -> FigureOfSeeds:
    """Mean and sample standard deviation of a figure, with its values.

    Args:
        values: value of each seed; where one is None, or there is none, the mean is None.
    """
    known = [value for value in values if value is not None]
    whole = len(known) == len(values) > 0
    return {
        "mean": statistics.fmean(known) if whole else None,
        "std": statistics.stdev(known) if whole and len(known) > 1 else None,
        "values": list(values),
    }


def best_teacher(result: RunResult) -> float | None:
    """Accuracy of the most accurate single teacher, in [0, 1]; None where none was measured.

    Args:
        result: result of the run.
    """
    known = [silo["teacher_accuracy"] for silo in result["silos"] if silo["teacher_accuracy"] is not None]
    return max(known, default=None)
