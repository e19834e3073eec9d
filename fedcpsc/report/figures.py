# SPDX-License-Identifier: Apache-2.0
"""Line and bar charts as inline SVG, in colours that the page sets: readable on a light ground and on a dark one.

Matplotlib draws in marker colours; each becomes a CSS variable afterwards. Series differ by dash and marker as well.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcpsc.printable import printable

__all__ = ["Lane", "Level", "Series", "bars", "lanes", "lines"]

_INK, _GRID = "#010101", "#020202"
_SERIES = tuple(f"#0303{i:02x}" for i in range(1, 7))
_VARIABLES = {_INK: "var(--ink)", _GRID: "var(--grid)"} | {c: f"var(--s{i})" for i, c in enumerate(_SERIES, 1)}
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDTH = 4.2  # inches; a phone shows it at about its own size
_HATCHES = (None, "////", "....")
_LONGEST_NAME = 40  # characters; the tables of the page have the whole name
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "svg.hashsalt": "fedcpsc",  # the same drawing gives the same bytes
    "font.size": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "hatch.color": _INK,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        points: pairs (x, y).
        alone: whether it is a single point, shown as a star.
    """

    name: str
    points: Sequence[tuple[float, float]]
    alone: bool = False


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
) -> str:
    """A line chart whose axes begin at 0.

    Args:
        name: name of the chart, unique on the page; every id inside begins with it.
        title: title for screen readers.
        top: upper end of the y axis; None lets the figures decide.
    """

    def draw(axis: Axes) -> None:
        for i, line in enumerate(series):
            colour = _SERIES[0] if line.alone else _SERIES[i % len(_SERIES)]
            x, y = [point[0] for point in line.points], [point[1] for point in line.points]
            if line.alone:
                axis.plot(x, y, color=colour, marker="*", markersize=13, linestyle="none", label=_shown(line.name))
                continue
            every = max(1, len(x) // 8)
            style = _DASHES[i % len(_DASHES)]
            marker = _MARKERS[i % len(_MARKERS)]
            shift = (i * every) // max(1, len(series))  # markers of lines that coincide do not
            axis.plot(
                x,
                y,
                color=colour,
                linestyle=style,
                marker=marker,
                markersize=4,
                markevery=(shift, every),
                label=_shown(line.name),
            )
        for i, level in enumerate(levels):
            axis.axhline(level.y, color=_INK, linestyle=_DASHES[1 + i % 3], linewidth=1.1, label=_shown(level.name))
        highest = max((y for line in series for _, y in line.points), default=1.0)
        axis.set_ylim(0, top or 1.05 * highest or 1.0)
        axis.set_xlim(left=0)

    return _svg(name, title, x_label, y_label, draw)


def bars(name: str, title: str, x_label: str, y_label: str, parts: Sequence[Series]) -> str:
    """Stacked bars over common x; every part but the first is hatched.

    Args:
        parts: parts from the bottom up, all with the same x.
    """

    def draw(axis: Axes) -> None:
        below = [0.0] * len(parts[0].points)
        for i, part in enumerate(parts):
            x, height = [point[0] for point in part.points], [point[1] for point in part.points]
            hatch = None if i == 0 else "////"
            axis.bar(x, height, bottom=below, color=_SERIES[i], hatch=hatch, width=0.8, label=_shown(part.name))
            below = [a + b for a, b in zip(below, height, strict=True)]

    return _svg(name, title, x_label, y_label, draw)


@dataclass(frozen=True)
class Lane:
    """One row of a time line.

    Attributes:
        kind: name of its kind; kinds differ by colour and hatching, and make the legend.
        spans: (begin, end), in seconds; those that overlap are drawn one below the other.
    """

    name: str
    kind: str
    spans: Sequence[tuple[float, float]]


def lanes(name: str, title: str, x_label: str, rows: Sequence[Lane]) -> str:
    """What happened when: a row of bars for each lane, the first on top."""
    kinds = list(dict.fromkeys(row.kind for row in rows))

    def draw(axis: Axes) -> None:
        for kind in kinds:
            i = kinds.index(kind)
            style: Any = {"facecolor": _SERIES[i], "hatch": _HATCHES[i % len(_HATCHES)], "label": _shown(kind)}
            for y, row in enumerate(rows):
                if row.kind != kind:
                    continue
                overlap = any(one[1] > other[0] for one, other in pairwise(row.spans))
                high = 0.4 if overlap else 0.8  # then every other one lies a little lower
                for half in range(1 + overlap):
                    spans = row.spans[half :: 1 + overlap]
                    spread = [(begin, end - begin) for begin, end in spans]
                    axis.broken_barh(spread, (y - 0.4 + high * half, high), **style)
                    style.pop("label", None)
        axis.set_yticks(range(len(rows)), [_shown(row.name) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(left=0)

    return _svg(name, title, x_label, "", draw, height=1.6 + 0.3 * len(rows))


def _shown(name: str) -> str:
    """A name as text of a chart: without what XML cannot hold, and short enough to leave room for the chart.

    The legend would leave out one that begins with `_`.
    """
    words = printable(name, _LONGEST_NAME)
    return f" {words}" if words.startswith("_") else words


def _svg(name: str, title: str, x_label: str, y_label: str, draw: Callable[[Axes], None], height: float = 3.2) -> str:
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it is the reader's font that draws the text
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axis = figure.subplots()
        draw(axis)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(linewidth=0.6)
        axis.set_axisbelow(True)
        for scale in (axis.xaxis, axis.yaxis):
            if scale.get_view_interval()[1] >= 1000:
                scale.set_major_formatter("{x:,.0f}")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        figure.legend(loc="outside upper left", frameon=False, ncols=1, borderpad=0.1, labelspacing=0.3)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), name, title)


def _inline(svg: str, name: str, title: str) -> str:
    """A whole SVG file -> an element for a page: no header, ids of its own, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # only a default for line joins; the page has it
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)  # as matplotlib before 3.10 writes it
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    head = f'<svg role="img" aria-labelledby="{name}-title" class="chart" viewBox='
    svg = re.sub(r"<svg[^>]*?viewBox=", head, svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"(<svg[^>]*?>)", rf'\1<title id="{name}-title">{escape(title)}</title>', svg, count=1)
    return re.sub(r"\n\s*", "\n", svg).strip()
