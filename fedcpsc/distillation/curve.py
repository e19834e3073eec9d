# SPDX-License-Identifier: Apache-2.0
"""curve.png: what the answers brought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcpsc.chart_layout import spread, x_axis, y_axis
from fedcpsc.runs.metrics import MetricsLine

__all__ = ["save_curve"]

_ASKED, _STUDENT, _LEADER = "#4e5861", "#0b6e99", "#9aa4ad"
_HIGH, _FULL = 80.0, 101.0  # per cent: where the figures come so near to all, the axis ends there
_PLANE = 300.0  # pixels: height of the plane, about
_APART = 17.0  # pixels from one label to the next


def save_curve(path: Path, lines: Sequence[MetricsLine], references: dict[str, float]) -> None:
    """Student accuracy against answers per silo, beside what the silos reach without it; each line named at its end.

    Args:
        lines: the run's metrics, one mapping a round.
        references: names and accuracies in [0, 1] drawn as level lines, e.g. the ensemble and the best single teacher.
    """
    rounds = [line for line in lines if line["phase"] == "round" and "student_accuracy" in line]
    final = [line for line in lines if line["phase"] == "final" and "student_accuracy" in line][-1:]
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axis = figure.subplots()
    labels: list[tuple[str, float, str]] = []
    xs = [float(line["answers_used"]) for line in (*rounds, *final)]
    ys = [100 * line["student_accuracy"] for line in (*rounds, *final)]
    if rounds:
        axis.plot(xs[: len(rounds)], ys[: len(rounds)], color=_STUDENT, marker="o", markersize=3.5, clip_on=False)
        labels.append((f"student, last round: {ys[len(rounds) - 1]:.1f} %", ys[len(rounds) - 1], _STUDENT))
    if final:
        axis.plot(xs[-1:], ys[-1:], color=_STUDENT, marker="*", markersize=13, clip_on=False, zorder=5)
        labels.append((f"student, final fit: {ys[-1]:.1f} %", ys[-1], _STUDENT))
    for (name, value), style in zip(references.items(), ("--", ":", "-."), strict=False):
        axis.axhline(100 * value, color=_ASKED, linestyle=style, linewidth=1.2)
        labels.append((f"{name}: {100 * value:.1f} %", 100 * value, _ASKED))
    _scale(axis, xs, [*ys, *(100 * value for value in references.values())])
    _name_ends(axis, labels)
    figure.savefig(path, dpi=130)


def _scale(axis: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """The axes begin where something happens; one that does not begin at 0 says so."""
    upper = y_axis(ys, _FULL if max(ys, default=0.0) > _HIGH else None)
    lower = x_axis(xs or [1.0], from_zero=True)
    axis.set_ylim(upper.low, upper.high)
    axis.set_yticks(upper.ticks, upper.labels())
    axis.set_xlim(lower.low, lower.high)
    axis.set_xticks(lower.ticks, lower.labels())
    begins = f"\n(axis begins at {upper.labels()[0]})" if upper.cut else ""
    axis.set_xlabel("images answered by each silo")
    axis.set_ylabel(f"accuracy on held-out real images, %{begins}")
    axis.grid(alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _name_ends(axis: Axes, labels: Sequence[tuple[str, float, str]]) -> None:
    low, high = axis.get_ylim()
    pixels = _PLANE / (high - low)
    places = spread([(y - low) * pixels for _, y, _ in labels], _APART, _PLANE)
    for (text, y, colour), place in zip(labels, places, strict=True):
        axis.annotate(
            text,
            xy=(1.0, y),
            xycoords=axis.get_yaxis_transform(),
            xytext=(1.04, low + place / pixels),
            textcoords=axis.get_yaxis_transform(),
            color=colour,
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": _LEADER, "linewidth": 0.7, "linestyle": ":", "relpos": (0, 0.5)},
            annotation_clip=False,
            parse_math=False,
        )
