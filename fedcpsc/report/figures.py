# SPDX-License-Identifier: Apache-2.0
"""Line charts, stacked bars, time lines and heat maps as inline drawings, in colours that the page sets.

Series differ by dash, marker or hatching as well as by colour, and are named where they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedcpsc.chart_layout import Axis, x_axis, y_axis
from fedcpsc.report.end_labels import EndLabel, end_labels, room_for
from fedcpsc.report.plane import DASHES, SERIES, STAR, dash, frame, marker, marks, pattern, shown, swatch

__all__ = ["Lane", "Level", "Series", "bars", "lanes", "lines"]

_HEIGHT = 260  # pixels
_MOST_MARKERS = 24  # of a line
_LANE, _BAR, _NAME = 44, 18, 16  # pixels of a time line's row, of its bar, and of the name above


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        points: pairs (x, y), in the order of x.
        alone: whether it is a single point, shown as a star.
        end: words at its end; None takes the name.
    """

    name: str
    points: Sequence[tuple[float, float]]
    alone: bool = False
    end: str | None = None


@dataclass(frozen=True)
class Level:
    """A level line across the chart."""

    name: str
    y: float


def lines(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    levels: Sequence[Level] = (),
    top: float | None = None,
    from_zero: bool = False,
    x_from_zero: bool = False,
) -> str:
    """A line chart. Its y axis begins at 0, or, where all that happens lies far above, shortly below it, and says so.

    Args:
        name: name of the chart, unique on the page; every id inside begins with it.
        title: title for screen readers.
        top: upper end of the y axis; None lets the figures decide.
        from_zero: whether the y axis begins at 0 in any case.
        x_from_zero: whether the x axis begins at 0 rather than at the first point.
    """
    xs = [x for line in series for x, _ in line.points] or [0.0, 1.0]
    x = x_axis(xs, x_from_zero)
    ys = [y for line in series for _, y in line.points] + [level.y for level in levels]
    y = y_axis(ys, top, from_zero)
    drawn, labels, key = [], [], []
    for i, level in enumerate(levels):
        at, style = 100 - y.share(level.y), DASHES[1 + i % 3]
        drawn.append(f'<line class="level" x1="0" x2="100%" y1="{at:.2f}%" y2="{at:.2f}%" stroke-dasharray="{style}"/>')
        labels.append(EndLabel(level.name, 100.0, at, 0))
        sample = f'<line style="stroke: var(--ink)" x1="0" x2="30" y1="6" y2="6" stroke-dasharray="{style}"/>'
        key.append((swatch(sample), shown(level.name)))
    for i, line in enumerate(series):
        if not line.points:
            continue
        colour = 1 if line.alone else i % SERIES + 1
        places = [(x.share(px), 100 - y.share(py)) for px, py in line.points]
        drawn.append(_line(line, i, colour, places))
        labels.append(EndLabel(line.end or line.name, *places[-1], colour))
        key.append((swatch(_sample(line, i, colour)), shown(line.end or line.name)))
    inside = "".join(drawn) + end_labels(labels, _HEIGHT)
    return frame(
        name,
        title,
        x,
        y,
        inside,
        height=_HEIGHT,
        x_label=x_label,
        y_label=y_label,
        ends=room_for(labels),
        key=key,
    )


def _line(line: Series, number: int, colour: int, at: Sequence[tuple[float, float]]) -> str:
    if line.alone:
        return marks(STAR, colour, at)
    path = "L".join(f"{x:.2f} {y:.2f}" for x, y in at)
    stroke = f'<path class="line" d="M{path}" style="stroke: var(--s{colour})"{dash(number)}/>'
    every = max(1, -(-len(at) // _MOST_MARKERS))
    shape = marker(number)
    plane = 'width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none" overflow="visible"'
    return f"<svg {plane}>{stroke}</svg>" + marks(shape, colour, [*at[:-1:every], at[-1]])


def _sample(line: Series, number: int, colour: int) -> str:
    shape = STAR if line.alone else marker(number)
    stroke = f'<line x1="0" x2="30" y1="6" y2="6" style="stroke: var(--s{colour}); stroke-width: 2"{dash(number)}/>'
    dot = f'<g transform="translate(15 6)" style="fill: var(--s{colour})">{shape}</g>'
    return dot if line.alone else stroke + dot


def bars(name: str, title: str, x_label: str, y_label: str, parts: Sequence[Series]) -> str:
    """Stacked bars over common x; every part but the first is hatched.

    Args:
        name: name of the chart, unique on the page.
        title: title for screen readers.
        parts: parts from the bottom up, all with the same x, one apart.
    """
    xs = [x for x, _ in parts[0].points]
    totals = [sum(part.points[i][1] for part in parts) for i in range(len(xs))]
    ticks = tuple(tick for tick in x_axis(xs, from_zero=False).ticks if tick <= max(xs))
    x, y = Axis(min(xs) - 0.5, max(xs) + 0.5, ticks), y_axis(totals, from_zero=True)
    drawn, key, below = [], [], [0.0] * len(xs)
    step = 100 / (x.high - x.low)
    for number, part in enumerate(parts):
        definition, fill = pattern(name, number)
        drawn.append(definition)
        for i, (at, height) in enumerate(part.points):
            if height > 0:
                upper = 100 - y.share(below[i] + height)
                drawn.append(
                    f'<rect x="{x.share(at) - 0.4 * step:.2f}%" width="{0.8 * step:.2f}%" y="{upper:.2f}%" '
                    f'height="{y.share(height):.2f}%" style="fill: {fill}"/>'
                )
            below[i] += height
        key.append((swatch(f'<rect width="30" height="12" style="fill: {fill}"/>'), shown(part.name)))
    return frame(
        name, title, x, y, "".join(drawn), height=220, x_label=x_label, y_label=y_label, key=key, key_stays=True
    )


@dataclass(frozen=True)
class Lane:
    """One row of a time line.

    Attributes:
        kind: name of its kind; kinds differ by colour, lanes by the names above them.
        spans: (begin, end), in seconds; those that overlap are drawn one below the other.
    """

    name: str
    kind: str
    spans: Sequence[tuple[float, float]]


def lanes(name: str, title: str, x_label: str, rows: Sequence[Lane]) -> str:
    """What happened when: a row of bars for each lane, its name above it, the first on top."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    last = max((end for row in rows for _, end in row.spans), default=1.0)
    x = x_axis([last], from_zero=True, whole=last > 5)
    fills = {kind: f"var(--s{i % SERIES + 1})" for i, kind in enumerate(kinds)}
    drawn = []
    for number, row in enumerate(rows):
        top = number * _LANE
        drawn.append(f'<text x="0" y="{top + _NAME - 4}">{shown(row.name)}</text>')
        overlap = any(one[1] > other[0] for one, other in pairwise(row.spans))
        high = _BAR / 2 if overlap else _BAR  # then every other one lies a little lower
        for i, (begin, end) in enumerate(row.spans):
            y = top + _NAME + (high if overlap and i % 2 else 0)
            width = max(x.share(end) - x.share(begin), 0.08)
            drawn.append(
                f'<rect x="{x.share(begin):.2f}%" width="{width:.2f}%" y="{y:.0f}" height="{high:.0f}" '
                f'style="fill: {fills[row.kind]}"/>'
            )
    key = [
        (swatch(f'<rect width="30" height="12" style="fill: {fill}"/>'), shown(kind)) for kind, fill in fills.items()
    ]
    height = _LANE * len(rows)
    return frame(name, title, x, None, "".join(drawn), height=height, x_label=x_label, key=key, key_stays=True)
