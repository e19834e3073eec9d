# SPDX-License-Identifier: Apache-2.0
"""The two pictures every run leaves: what it asked about, and what the answers brought."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fedcpsc.runs.metrics import MetricsLine

__all__ = ["save_curve", "save_samples"]

_NAME = 20  # characters of a name that fit
_PER_CLASS = 10
_ASKED, _STUDENT = "#5b6770", "#0b6e99"


def save_samples(
    path: Path, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.float32], names: Sequence[str] | None = None
) -> None:
    """Query images in rows by the class the silos saw in them, the surest first.

    Args:
        images: images to draw, uint8 [N, C, H, W].
        targets: aggregated answers [N, K].
        names: names of the classes; None shows their numbers.
    """
    classes = targets.shape[1]
    figure = Figure(figsize=(0.62 * _PER_CLASS + 1.1, 0.62 * classes + 0.9), layout="constrained")
    axes = figure.subplots(classes, _PER_CLASS, squeeze=False)
    seen = targets.argmax(1)
    for k in range(classes):
        rows = np.flatnonzero(seen == k)
        rows = rows[np.argsort(-targets[rows, k], kind="stable")][:_PER_CLASS]
        for column in range(_PER_CLASS):
            axis = axes[k, column]
            axis.set_axis_off()
            if column < len(rows):
                picture = images[rows[column]].transpose(1, 2, 0)
                grey = picture.shape[2] == 1
                shown = picture[:, :, 0] if grey else picture
                axis.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest")
        label = f"{names[k][:_NAME] if names else k}  ({int((seen == k).sum())})"
        place = {"transform": axes[k, 0].transAxes, "ha": "right", "va": "center"}
        axes[k, 0].text(-0.15, 0.5, label, **place, fontsize=8, parse_math=False)  # a name may hold a dollar sign
    figure.suptitle("Query images by the class the silos saw in them (how many)", fontsize=10)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in any script
        figure.savefig(path, dpi=130)


def save_curve(path: Path, lines: Sequence[MetricsLine], references: dict[str, float]) -> None:
    """Student accuracy against answers per silo, beside what the silos reach without it.

    Args:
        lines: the run's metrics, one mapping a round.
        references: names and accuracies drawn as level lines, e.g. the ensemble and the best single teacher.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    rounds = [line for line in lines if line["phase"] == "round" and "student_accuracy" in line]
    final = [line for line in lines if line["phase"] == "final" and "student_accuracy" in line]
    axis.plot(
        [line["answers_used"] for line in rounds],
        [100 * line["student_accuracy"] for line in rounds],
        color=_STUDENT,
        marker="o",
        markersize=3.5,
        label="student, during the rounds",
    )
    if final:
        x, y = final[-1]["answers_used"], 100 * final[-1]["student_accuracy"]
        axis.plot(
            [x], [y], color=_STUDENT, marker="*", markersize=13, linestyle="none", label=f"student, final: {y:.1f} %"
        )
    for (name, value), style in zip(references.items(), ("--", ":", "-."), strict=False):
        axis.axhline(100 * value, color=_ASKED, linestyle=style, linewidth=1.2, label=f"{name}: {100 * value:.1f} %")
    axis.set_xlabel("images answered by each silo")
    axis.set_ylabel("accuracy on held-out real images, %")
    axis.set_ylim(0, 102)
    axis.set_xlim(left=0)
    axis.grid(alpha=0.25)
    axis.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)
