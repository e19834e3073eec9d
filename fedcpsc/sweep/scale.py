# SPDX-License-Identifier: Apache-2.0
"""The axis of a sweep's chart: it begins and ends where something is, at round figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedcpsc.sweep.table import Summary

__all__ = ["Scale", "scale_of"]

_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25)
_MOST_TICKS = 6
_WIDEST = 2.0  # times as wide as the students alone need
_NARROWEST = 2.0  # per cent: between figures that are all but equal, noise would look like a difference


@dataclass(frozen=True)
class Scale:
    """An axis in per cent.

    Attributes:
        low, high: figures at its ends, in [0, 100], low < high.
        ticks: figures that are written beside it, in order.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, share: float) -> float:
        """Where a share in [0, 1] lies: 0 at the beginning of the axis, 100 at its end."""
        return 100 * (100 * share - self.low) / (self.high - self.low)

    def holds(self, share: float | None) -> bool:
        """Whether a share in [0, 1] lies on the axis."""
        return share is not None and self.low <= 100 * share <= self.high

    def labels(self) -> list[str]:
        """The ticks in words."""
        decimals = 0 if all(tick == round(tick) for tick in self.ticks) else 1
        return [f"{tick:.{decimals}f}" for tick in self.ticks]


def scale_of(summaries: Sequence[Summary]) -> Scale | None:
    """The axis that holds all students; the ensembles too, unless they are so far off that no difference would be seen.

    Args:
        summaries: one summary for each setting.

    Returns:
        The axis; None where no student was measured.
    """
    students = [100 * value for value in _of_students(summaries)]
    if not students:
        return None
    low, high = min(students), max(students)
    room = max(0.06 * (high - low), (_NARROWEST - (high - low)) / 2)
    ensembles = [100 * value for summary in summaries if (value := summary.ensemble["mean"]) is not None]
    widest = _WIDEST * (high - low + 2 * room)
    if ensembles and max(high, *ensembles) - min(low, *ensembles) + 2 * room <= widest:
        low, high = min(low, *ensembles), max(high, *ensembles)
    low, high = max(0.0, low - room), min(100.0, high + room)
    step = next((step for step in _STEPS if (high - low) / step <= _MOST_TICKS), _STEPS[-1])
    first = math.ceil(round(low / step, 6))
    ticks = tuple(round(step * number, 1) for number in range(first, math.floor(round(high / step, 6)) + 1))
    return Scale(low, high, ticks)


def _of_students(summaries: Sequence[Summary]) -> Iterable[float]:
    for summary in summaries:
        figure = summary.student
        yield from (value for value in figure["values"] if value is not None)
        if figure["mean"] is not None and figure["std"] is not None:
            yield from (max(0.0, figure["mean"] - figure["std"]), min(1.0, figure["mean"] + figure["std"]))
