# SPDX-License-Identifier: Apache-2.0
"""sweep.png: each setting's student, mean and spread, every seed, and the ensemble that it could hope for."""

from __future__ import annotations

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
from fedcpsc.sweep.words import shortened, spread

__all__ = ["save_picture"]

_INK, _SOFT, _GRID, _STUDENT, _ENSEMBLE = "#1b1f23", "#505a63", "#d4d9de", "#0b6e99", "#b3470a"
_NAME: Final = 34  # characters
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
    height = 1.35 + _ROW * len(summaries)
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in another script
        figure = Figure(figsize=(8.0, height), layout="constrained")
        axis = figure.subplots()
        if scale is None:
            axis.text(0.5, 0.5, "no student was measured yet", ha="center", va="center", color=_SOFT)
            axis.set_axis_off()
        else:
            _draw(axis, scale, summaries)
            figure.suptitle(
                printable(f"{sweep.name}: accuracy of the student, %"), x=0.01, ha="left", fontsize=12, color=_INK
            )
            handles, labels = axis.get_legend_handles_labels()
            figure.legend(
                handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=9, labelcolor=_SOFT
            )
        with durable(path) as file:
            figure.savefig(file, dpi=150, format="png")


def _draw(axis: Axes, scale: Scale, summaries: Sequence[Summary]) -> None:
    for place, summary in enumerate(summaries):
        figure, ensemble = summary.student, summary.ensemble["mean"]
        values = [100 * value for value in figure["values"] if value is not None]
        once = place == 0
        axis.plot(
            values, [place] * len(values), "o", color=_STUDENT, mfc="white", ms=4.5, mew=1, alpha=0.7, zorder=3,
            label="each seed" if once else None,
        )  # fmt: skip
        if figure["mean"] is not None:
            bar = 100 * (figure["std"] or 0.0)
            axis.errorbar(
                100 * figure["mean"], place, xerr=bar, fmt="o", color=_STUDENT, ms=7, elinewidth=2, capsize=0, zorder=4,
                label="mean and standard deviation" if once else None,
            )  # fmt: skip
            if ensemble is not None:
                axis.plot(
                    100 * ensemble, place, "D", color=_ENSEMBLE, mfc="none", ms=6, zorder=2,
                    label="ensemble of the silos" if once else None,
                )  # fmt: skip
        words = spread(figure) if summary.count else "no run finished"
        axis.annotate(
            words, (1.02, place), xycoords=("axes fraction", "data"), va="center", color=_INK, annotation_clip=False
        )
    names = [printable(shortened(summary.setting.name, _NAME)) for summary in summaries]
    axis.set_yticks(range(len(summaries)), names, color=_INK)
    axis.set_ylim(len(summaries) - 0.5, -0.5)
    axis.set_xlim(scale.low, scale.high)
    axis.set_xticks(scale.ticks, scale.labels(), color=_SOFT)
    axis.grid(axis="x", color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
