# SPDX-License-Identifier: Apache-2.0
"""Where things stand in a chart: the ends of its axes, what is written beside them, labels that must not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

__all__ = ["Axis", "spread", "x_axis", "y_axis"]

_TICKS = 6  # at most
_STEPS = (1, 2, 2.5, 5, 10)
_NOTHING_BELOW = 0.6  # of the highest figure: where all lie above this share of it, the axis need not begin at 0
_ROOM = 0.04  # of the axis, above the highest figure


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low, high: figures at its ends; low < high.
        ticks: figures that are written beside it, in order.
        cut: whether it begins above 0, which the reader must be told.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    cut: bool = False

    def share(self, value: float) -> float:
        """Where a figure lies: 0 at the beginning, 100 at the end; per cent of the axis."""
        return 100 * (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """The ticks in words, with as many decimals as tell them apart."""
        for decimals in range(7):
            if all(math.isclose(round(tick, decimals), tick, abs_tol=1e-9 * self.high) for tick in self.ticks):
                return [f"{tick:,.{decimals}f}" for tick in self.ticks]
        return [f"{tick:.6g}" for tick in self.ticks]


def x_axis(values: Sequence[float], from_zero: bool, whole: bool = True) -> Axis:
    """An axis that ends at the last figure.

    Args:
        values: figures that are drawn, at least one.
        from_zero: whether it begins at 0 rather than at the first figure.
        whole: whether only whole numbers stand beside it.
    """
    low, high = 0.0 if from_zero else min(values), max(values)
    high = high if high > low else low + 1.0
    ticks = _ticks(low, high, whole)
    if len(ticks) > 1 and ticks[0] - low > 0.7 * (ticks[1] - ticks[0]):
        ticks.insert(0, low)
    return Axis(low, high, tuple(ticks))


def y_axis(values: Sequence[float], top: float | None = None, from_zero: bool = False) -> Axis:
    """An axis that begins at 0, or, where all that happens lies far above, shortly below it.

    Args:
        values: figures that are drawn, each >= 0.
        top: upper end; None lets the figures decide.
        from_zero: whether it begins at 0 in any case.
    """
    lowest, highest = min(values, default=0.0), max(values, default=1.0)
    high = top if top is not None else highest + _ROOM * highest or 1.0
    if from_zero or lowest == highest or lowest < _NOTHING_BELOW * highest:
        return Axis(0.0, high, tuple(_ticks(0.0, high)))
    if top is None:
        high = highest + _ROOM * (highest - lowest) * 2
    ticks = MaxNLocator(nbins=_TICKS - 1, steps=_STEPS).tick_values(lowest, high)
    # the first tick lies below all figures, but for rounding: 100 * 0.57 is a little less than 57
    low = max((float(tick) for tick in ticks if tick <= lowest), default=float(ticks[0]))
    if lowest - low < _ROOM * (high - low):  # what happens there would lie on the axis
        low = max(0.0, low - float(ticks[1] - ticks[0]))
    return Axis(low, high, tuple(_ticks(low, high)), cut=low > 0)


def spread(wanted: Sequence[float], apart: float, room: float) -> list[float]:
    """Places as close to the wanted ones as they can be while none is closer than `apart` to another.

    Neighbours that are too close make a block, whose middle is the mean of what its members want; blocks that touch are
    one (pool adjacent violators, Best & Chakravarti 1990: the least squares under an order).

    Args:
        wanted: wanted places, in pixels, in any order.
        apart: least distance, in pixels; made smaller where they would not fit into `room`.
        room: largest distance from the first to the last, in pixels.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(apart, room / max(1, len(wanted) - 1))
    blocks: list[tuple[float, int]] = []  # (mean of wanted places, less what the gaps before take; members)
    for position, i in enumerate(order):
        mean, members = wanted[i] - position * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, members = (before * count + mean * members) / (count + members), count + members
        blocks.append((mean, members))
    base = [mean for mean, members in blocks for _ in range(members)]
    places = [0.0] * len(wanted)
    for position, i in enumerate(order):
        places[i] = base[position] + position * gap
    return places


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    found = MaxNLocator(nbins=_TICKS, steps=_STEPS, integer=whole).tick_values(low, high)
    edge = 1e-9 * (high - low)
    return [float(tick) for tick in found if low - edge <= tick <= high + edge]
