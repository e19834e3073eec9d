# SPDX-License-Identifier: Apache-2.0
"""sweep.png: each setting's student, mean and spread, every seed, and the ensemble that it could hope for."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcpsc.files import durable
from fedcpsc.printable import printable
from fedcpsc.sweep.expand import Sweep
from fedcpsc.sweep.scale import Scale, scale_of
from fedcpsc.sweep.table import Summary
from fedcpsc.sweep.words import share, shortened, spread

__all__ = ["save_picture"]

_INK, _SOFT, _GRID, _STUDENT, _ENSEMBLE = "#1b1f23", "#505a63", "#d4d9de", "#0b6e99", "#b3470a"
_NAME: Final = 34  # characters
_BELOW: Final = 0.24  # rows by which each seed's ring stands below the mean
_STUDENTS, _ENSEMBLES = 12, 90  # places of their columns, in points from the end of the axis
_ROW: Final = 0.42  # inches
_STYLE: Any = {"text.parse_math": False, "font.size": 10, "axes.edgecolor": _GRID}


def save_picture(path: Path, sweep: Sweep, summaries: Sequence[Summary]) -> None:
    """Draws the summary; a sweep without a measured student gets a picture that says so.

    Args:
        path: file of the picture.
        sweep: the sweep.
        summaries: one summary for each setting, in the order in which they are drawn, the first on top.
    """
    scale = scale_of(summaries)
    height = 1.3 + _ROW * len(summaries)
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script
        figure = Figure(figsize=(8.0, height), layout="constrained")
        axis = figure.subplots()
        if scale is None:
            axis.text(0.5, 0.5, "no student was measured yet", ha="center", va="center", color=_SOFT)
            axis.set_axis_off()
        else:
            _draw(axis, scale, summaries)
            title = printable(f"{sweep.name}: accuracy of the student, %")
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=_INK)
            figure.supxlabel(_key(scale, summaries), x=0.01, ha="left", fontsize=9, color=_SOFT)
        with durable(path) as file:
            figure.savefig(file, dpi=150, format="png")


def _key(scale: Scale, summaries: Sequence[Summary]) -> str:
    seeds = "dot and bar: mean and standard deviation over the seeds; rings: each seed"
    shown = any(scale.holds(summary.ensemble["mean"]) for summary in summaries)
    return seeds + ("; diamond: the silos' ensemble" if shown else "")


def _draw(axis: Axes, scale: Scale, summaries: Sequence[Summary]) -> None:
    for place, summary in enumerate(summaries):
        figure, ensemble = summary.student, summary.ensemble["mean"]
        values = [100 * value for value in figure["values"] if value is not None]
        if len(values) > 1:
            axis.plot(values, [place + _BELOW] * len(values), "o", color=_STUDENT, mfc="none", ms=3.5, mew=0.8)
        if figure["mean"] is not None:
            bar = 100 * (figure["std"] or 0.0)
            axis.errorbar(100 * figure["mean"], place, xerr=bar, fmt="o", color=_STUDENT, ms=7, elinewidth=2, capsize=0)
        if ensemble is not None and scale.holds(ensemble):
            axis.plot(100 * ensemble, place, "D", color=_ENSEMBLE, mfc="none", ms=6)
        words = spread(figure) if summary.count else "no run finished"
        _beside(axis, _STUDENTS, place, words, _INK)
        _beside(axis, _ENSEMBLES, place, share(ensemble), _ENSEMBLE)
    _beside(axis, _STUDENTS, -0.75, "student", _SOFT)
    _beside(axis, _ENSEMBLES, -0.75, "ensemble", _SOFT)
    names = [_in_two_lines(summary.setting.name) for summary in summaries]
    axis.set_yticks(range(len(summaries)), names, color=_INK, fontsize=9)
    axis.set_ylim(len(summaries) - 0.5, -0.5)
    axis.set_xlim(scale.low, scale.high)
    axis.set_xticks(scale.ticks, scale.labels(), color=_SOFT)
    axis.grid(axis="x", color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _beside(axis: Axes, points: int, y: float, words: str, colour: str) -> None:
    """Words so many points to the right of the axis, in a column of their own."""
    axis.annotate(
        words, (1, y), xytext=(points, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", color=colour, annotation_clip=False,
    )  # fmt: skip


def _in_two_lines(name: str) -> str:
    lines = textwrap.wrap(printable(name), _NAME, break_on_hyphens=False) or [""]
    return "\n".join([lines[0], *([shortened(" ".join(lines[1:]), _NAME)] if lines[1:] else [])])
