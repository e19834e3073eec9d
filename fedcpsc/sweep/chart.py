# SPDX-License-Identifier: Apache-2.0
"""The chart of a sweep's page: HTML with inline SVG, in the page's colours, as wide as the reader's screen.

Places are per cent of the width, letters and strokes keep their size: names wrap and stay readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from fedcpsc.printable import printable
from fedcpsc.sweep.scale import Scale
from fedcpsc.sweep.table import Summary
from fedcpsc.sweep.words import spread

__all__ = ["dot_chart"]

_HEAD = "display:flex;justify-content:space-between;align-items:baseline;gap:1rem;line-height:1.3"
_NAME = "overflow-wrap:anywhere;min-width:0"
_HEIGHT, _MEAN_Y, _SEEDS_Y = 26, 9, 20  # pixels of a row below its name
_VALUE = "white-space:nowrap;font-variant-numeric:tabular-nums;font-weight:600"


def dot_chart(title: str, scale: Scale, summaries: Sequence[Summary]) -> str:
    """A row for each setting: its name and figure, and below them mean, deviation, every seed and the ensemble.

    Args:
        title: what the chart shows, for those who do not see it.
        scale: axis of the chart.
        summaries: one summary for each setting, the first on top.
    """
    rows = "\n".join(_row(scale, summary) for summary in summaries)
    return (
        f'<div role="img" aria-label={quoteattr(title)} style="max-width:44rem;margin:.75rem 0">\n'
        f"{rows}\n{_axis(scale)}\n</div>"
    )


def _row(scale: Scale, summary: Summary) -> str:
    words = spread(summary.student) if summary.count else "no run finished"
    head = (
        f'<div style="{_HEAD}"><span style="{_NAME}">{escape(printable(summary.setting.name))}</span>'
        f'<span style="{_VALUE}">{words}</span></div>'
    )
    ticks = [scale.place(tick / 100) for tick in scale.ticks]
    parts = [_line(x, x, 0, _HEIGHT, "var(--grid)", 1) for x in ticks]
    figure, ensemble = summary.student, summary.ensemble["mean"]
    if figure["mean"] is not None:
        if ensemble is not None and scale.holds(ensemble):
            parts.append(_shape(scale.place(ensemble), _MEAN_Y, '<path d="M0 -6L6 0L0 6L-6 0Z"/>', "none", "var(--s2)"))
        if figure["std"] is not None:
            low, high = max(0.0, figure["mean"] - figure["std"]), min(1.0, figure["mean"] + figure["std"])
            parts.append(_line(scale.place(low), scale.place(high), _MEAN_Y, _MEAN_Y, "var(--s1)", 2))
        parts.append(_shape(scale.place(figure["mean"]), _MEAN_Y, '<circle r="5.5"/>', "var(--s1)", "none"))
    for value in figure["values"]:
        if value is not None and len(figure["values"]) > 1:
            parts.append(_shape(scale.place(value), _SEEDS_Y, '<circle r="2.5"/>', "none", "var(--s1)"))
    drawing = f'<svg width="100%" height="{_HEIGHT}" overflow="visible" style="display:block;margin-bottom:.5rem">'
    return f"<div>{head}{drawing}{''.join(parts)}</svg></div>"


def _axis(scale: Scale) -> str:
    words = []
    for tick, label in zip(scale.ticks, scale.labels(), strict=True):
        x = scale.place(tick / 100)
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        words.append(f'<text x="{x:.2f}%" y="13" text-anchor="{anchor}">{label}</text>')
    style = "display:block;fill:var(--soft);font:.8125rem var(--font)"
    return f'<svg width="100%" height="18" overflow="visible" style="{style}">{"".join(words)}</svg>'


def _line(x1: float, x2: float, y1: int, y2: int, colour: str, width: int) -> str:
    """From one place to another, x in per cent and y in pixels."""
    ends = f'x1="{x1:.2f}%" x2="{x2:.2f}%" y1="{y1}" y2="{y2}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"></line>'


def _shape(x: float, y: int, shape: str, fill: str, stroke: str) -> str:
    """A shape drawn around (0, 0), moved to x in per cent and y in pixels."""
    inner = shape.replace("/>", f' fill="{fill}" stroke="{stroke}" stroke-width="1.3"/>')
    return f'<svg x="{x:.2f}%" y="{y}" overflow="visible">{inner}</svg>'
