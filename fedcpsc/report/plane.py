# SPDX-License-Identifier: Apache-2.0
"""The ground that every chart of a page is drawn on: HTML with an inline SVG that fills any width.

Places are per cent of the plane, letters and strokes keep their size: a chart is as wide as the page lets it be and its
words are as readable on a phone as on a wall. Colours are the page's variables, so that it suits light and dark.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from xml.sax.saxutils import escape

from fedcpsc.chart_layout import Axis
from fedcpsc.printable import printable

__all__ = ["DASHES", "SERIES", "STAR", "dash", "frame", "marker", "marks", "pattern", "shown", "swatch", "width_of"]

SERIES = 6
"""Colours that the page has for series, `--s1` to `--s6`."""

DASHES = ("", "7 4", "9 3 2 3", "2 3")
_SHAPES = (
    '<circle r="3.5"/>',
    '<path d="M-3 -3H3V3H-3Z"/>',
    '<path d="M0 -4L4 3H-4Z"/>',
    '<path d="M0 -4.5L4.5 0L0 4.5L-4.5 0Z"/>',
    '<path d="M0 4L4 -3H-4Z"/>',
    '<path d="M-1.2 -4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2Z"/>',
)
STAR = '<path d="M0 -8L2.1 -2.6L7.6 -2.5L3.3 1L4.7 6.5L0 3.4L-4.7 6.5L-3.3 1L-7.6 -2.5L-2.1 -2.6Z"/>'
_LONGEST_NAME = 40  # characters; the tables of the page have the whole name
_EM = 13.0  # pixels: font size of a chart's words


def shown(name: str, longest: int = _LONGEST_NAME) -> str:
    """A name as text of a chart, escaped: without what XML cannot hold, and short enough to leave it room."""
    return escape(printable(name, longest))


def width_of(text: str) -> float:
    """Pixels that a text of a chart takes at most, by a wide common font."""
    units = sum(2.0 if unicodedata.east_asian_width(letter) in "WF" else 1.0 for letter in text)
    return 0.55 * _EM * units


def dash(number: int) -> str:
    """Attribute that gives the line of a series, counted from 0, its dashes."""
    pattern_of = DASHES[number % len(DASHES)]
    return f' stroke-dasharray="{pattern_of}"' if pattern_of else ""


def marker(number: int) -> str:
    """Shape of a series' points, around (0, 0)."""
    return _SHAPES[number % len(_SHAPES)]


def marks(shape: str, colour: int, places: Sequence[tuple[float, float]]) -> str:
    """The same shape at several places, (x, y) in per cent from the upper left."""
    at = (f'<svg x="{x:.2f}%" y="{y:.2f}%" overflow="visible">{shape}</svg>' for x, y in places)
    return f'<g style="fill: var(--s{colour})">{"".join(at)}</g>'


def pattern(name: str, number: int) -> tuple[str, str]:
    """How the area of part `number` (from 0) is filled: (definition, value of `fill`); parts differ by hatching too."""
    colour = f"var(--s{number % SERIES + 1})"
    if number == 0:
        return "", colour
    turned, gap = (45, 5) if number % 2 else (0, 4)
    definition = (
        f'<pattern id="{name}-hatch-{number}" width="{gap}" height="{gap}" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate({turned})"><rect width="{gap}" height="{gap}" style="fill: var(--paper)"/>'
        f'<rect width="{gap}" height="{gap / 2}" style="fill: {colour}"/></pattern>'
    )
    return definition, f"url(#{name}-hatch-{number})"


def swatch(inside: str) -> str:
    """A sample for the key of a chart."""
    return f'<svg width="30" height="12" viewBox="0 0 30 12" overflow="visible" aria-hidden="true">{inside}</svg>'


def frame(
    name: str,
    title: str,
    x: Axis | None,
    y: Axis | None,
    inside: str,
    *,
    height: int,
    x_label: str = "",
    y_label: str = "",
    ends: float = 16.0,
    key: Sequence[tuple[str, str]] = (),
    key_stays: bool = False,
    square_from: float | None = None,
) -> str:
    """The chart: axes, what is drawn inside, and a key of (sample, words) below the title.

    Args:
        name: name of the chart, unique on the page; every id inside begins with it.
        title: title for screen readers.
        x: axis from left to right; None draws none.
        y: axis from the bottom up; None draws none.
        inside: SVG of what is drawn.
        height: height of the plane, in pixels.
        ends: pixels kept free to the right, for the labels of lines.
        key: samples and words.
        key_stays: whether wide screens show the key, too; else it stands for labels that a phone has no room for.
        square_from: pixels to the left of a plane that is as high as wide; None: the plane fills the width.
    """
    left = square_from or 4.0
    if y is not None:
        left = 14.0 + max((width_of(label) for label in y.labels()), default=0.0)
    drawn = [] if x is None else [_x_ticks(x)]
    if y is not None:
        drawn.insert(0, _y_ticks(y))
    begins = f" (axis begins at {y.labels()[0]})" if y is not None and y.cut else ""
    if y_label:
        drawn.append(f'<text class="quiet" x="{-left:.0f}" y="-16">{escape(y_label + begins)}</text>')
    if x_label:
        drawn.append(f'<text class="quiet" x="50%" y="100%" dy="40" text-anchor="middle">{escape(x_label)}</text>')
    entries = "".join(f"<li>{sample}<span>{words}</span></li>" for sample, words in key)
    kind = "" if key_stays else " of-lines"
    form = "chart" if square_from is None else "chart square"
    below = 52.0 if square_from is None else 12 + 0.75 * square_from  # the names below are turned by half a right angle
    listed = f'<ul class="key{kind}" aria-hidden="true">{entries}</ul>' if entries else ""
    room = f"--left: {left:.0f}px; --ends: {ends:.0f}px; --below: {below:.0f}px"
    return (
        f'<div class="{form}" style="{room}">{listed if key_stays else ""}'
        f'<svg class="plane" role="img" aria-labelledby="{name}-title" height="{height}">'
        f'<title id="{name}-title">{escape(title)}</title>{"".join(drawn)}{inside}</svg>'
        f"{'' if key_stays else listed}</div>"
    )


def _x_ticks(axis: Axis) -> str:
    parts = ['<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>']
    for tick, label in zip(axis.ticks, axis.labels(), strict=True):
        at = f"{axis.share(tick):.2f}%"
        parts.append(f'<svg x="{at}" y="100%" overflow="visible"><path class="axis" d="M0 0V5"/></svg>')
        parts.append(f'<text class="quiet" x="{at}" y="100%" dy="20" text-anchor="middle">{label}</text>')
    return "".join(parts)


def _y_ticks(axis: Axis) -> str:
    parts = []
    for tick, label in zip(axis.ticks, axis.labels(), strict=True):
        at = f"{100 - axis.share(tick):.2f}%"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="quiet" x="-8" y="{at}" dy="4.5" text-anchor="end">{label}</text>')
    if axis.cut:
        parts.append('<svg y="100%" overflow="visible"><path class="axis" d="M0 0V-4L-5 -7L5 -12L0 -15V-20"/></svg>')
    return "".join(parts)
