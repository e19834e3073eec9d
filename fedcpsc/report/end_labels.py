# SPDX-License-Identifier: Apache-2.0
"""Words at the ends of lines, in place of a legend: moved apart where lines end close together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcpsc.chart_layout import spread
from fedcpsc.report.plane import shown, width_of

__all__ = ["EndLabel", "end_labels", "room_for"]

_LINE = 16.0  # pixels from one label to the next
_LONGEST = 38  # characters; the key of a narrow screen and the tables have more


@dataclass(frozen=True)
class EndLabel:
    """One label.

    Attributes:
        text: words of the label.
        x, y: end of the line, in per cent of the plane from the upper left.
        colour: number of the series' colour, from 1; 0 is the ink's.
    """

    text: str
    x: float
    y: float
    colour: int


def room_for(labels: Sequence[EndLabel]) -> float:
    """Pixels that the labels need to the right of the plane."""
    return 26.0 + max((width_of(label.text[:_LONGEST]) for label in labels), default=0.0)


def end_labels(labels: Sequence[EndLabel], height: int) -> str:
    """SVG of the labels, each joined to its line's end.

    Args:
        labels: labels in any order.
        height: height of the plane, in pixels.
    """
    places = spread([label.y * height / 100 for label in labels], _LINE, height + 2 * _LINE)
    parts = []
    for label, place in zip(labels, places, strict=True):
        at = 100 * place / height
        parts.append(
            f'<line class="leader" x1="{label.x:.2f}%" x2="100%" y1="{label.y:.2f}%" y2="{label.y:.2f}%"/>'
            if label.x < 99
            else ""
        )
        fill = f"var(--s{label.colour})" if label.colour else "var(--ink)"
        parts.append(
            '<svg x="100%" width="1" height="100%" overflow="visible">'
            f'<line class="leader" x1="7" x2="18" y1="{label.y:.2f}%" y2="{at:.2f}%"/>'
            f'<text x="22" y="{at:.2f}%" dy="4.5" style="fill: {fill}">{shown(label.text, _LONGEST)}</text></svg>'
        )
    return f'<g class="ends">{"".join(parts)}</g>'
