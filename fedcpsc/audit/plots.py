# SPDX-License-Identifier: Apache-2.0
"""The audit's pictures. All are public but the neighbours: private images, for the silo's owner alone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fedcpsc.audit.figures import AuditRow, ModelFacts, Place, Plot, Unjudged
from fedcpsc.audit.plan import BOUND_ATTACK
from fedcpsc.audit.verdict import strongest
from fedcpsc.printable import printable

__all__ = ["save_neighbours", "save_plots"]

Item = TypeVar("Item", AuditRow, ModelFacts)

_LONGEST_NAME = 40  # characters
_COLOURS = ("#0b6e99", "#b5541c", "#3c7a3c", "#7a4a99", "#a8842c", "#5b6770", "#b03060", "#2a8f8f")
_SURFACES = {"teacher": "-", "student": "--"}
_MARKS = {"teacher": "o", "student": "s"}


def save_plots(folder: Path, audit: Unjudged) -> list[Plot]:
    """Draws what the audit has figures for; returns `audit.json`'s list of pictures.

    Args:
        folder: folder of the audit.
        audit: content of `audit.json`, without pictures.
    """
    plots = [_roc(folder, audit)]
    if any(bound["claimed_epsilon"] is not None for bound in audit["bounds"]):
        plots.append(_epsilon(folder, audit))
    if sum(row["answers"] is not None and row["attack"] == BOUND_ATTACK for row in audit["rows"]) > 1:
        plots.append(_leakage(folder, audit))
    if len(audit["models"]) > 1:
        plots.append(_frontier(folder, audit))
    return plots


def save_neighbours(
    folder: Path,
    silo: str,
    made: npt.NDArray[np.uint8],
    private: npt.NDArray[np.uint8],
    distances: npt.NDArray[np.float64],
) -> Plot:
    """Query images above the private images nearest to them, into `private/`.

    Args:
        folder: folder of the audit.
        silo: name of the silo that holds the private images.
        made: query images, uint8 [n, C, H, W].
        private: nearest private image of each, uint8 [n, C, H, W].
        distances: distance of each pair in the space of pixels, >= 0 [n].
    """
    where = folder / "private"
    where.mkdir(mode=0o700, exist_ok=True)
    figure = Figure(figsize=(max(6.4, 0.75 * len(made) + 0.9), 2.4), layout="constrained")
    axes = figure.subplots(2, len(made), squeeze=False)
    for column in range(len(made)):
        for axis, picture in ((axes[0, column], made[column]), (axes[1, column], private[column])):
            shown = picture.transpose(1, 2, 0)
            grey = shown.shape[2] == 1
            axis.imshow(shown[:, :, 0] if grey else shown, cmap="gray" if grey else None, vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[1, column].set_xlabel(f"{distances[column]:.0f}", fontsize=7)
    axes[0, 0].set_ylabel("asked", fontsize=8)
    axes[1, 0].set_ylabel("private", fontsize=8)
    figure.suptitle(
        f"Query images nearest to a private image of {_shown(silo)} (distance below): for its owner alone", fontsize=9
    )
    name = re.sub(r"[^A-Za-z0-9.]+", "-", silo)
    _save(figure, where / f"neighbours-{name}.png")
    alt = f"{len(made)} query images, each above the private image nearest to it in the space of pixels."
    return {
        "file": f"private/neighbours-{name}.png",
        "title": f"Query images beside the nearest private images of {silo}",
        "alt": alt,
        "private": True,
        "silo": silo,
    }


def _roc(folder: Path, audit: Unjudged) -> Plot:
    surfaces = [s for s in _SURFACES if any(row["surface"] == s for row in audit["rows"])]
    figure = Figure(figsize=(5.2 * len(surfaces) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(1, len(surfaces), squeeze=False)[0]
    colours = _colours(audit)
    described = []
    for axis, surface in zip(axes, surfaces, strict=True):
        for row in strongest(row for row in audit["rows"] if row["surface"] == surface):
            shown = ", ".join(f"{tpr:.1%}" for tpr in row["tpr_at"].values())
            described.append(f"{row['policy']} {surface} {shown}")
            label = f"{_shown(row['policy'])}, {row['attack']}: AUC {row['auc']:.3f}; {shown}"
            axis.plot(*_points(row), color=colours[row["policy"]], linewidth=1.6, label=label)
        axis.plot([1e-5, 1], [1e-5, 1], color="#5b6770", linestyle=":", linewidth=1, label="guessing")
        for fpr in audit["config"]["fprs"]:
            axis.axvline(fpr, color="#5b6770", alpha=0.35, linewidth=0.8)
        least = min(min(row["curve"]["fpr"]) for row in audit["rows"])
        axis.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05), title=f"the {surface}")
        axis.set_xlabel("non-members accused wrongly")
        axis.set_ylabel("members found")
        axis.grid(alpha=0.25, which="major")
        axis.legend(fontsize=7, loc="lower right")
    _save(figure, folder / "roc.png")
    fprs = ", ".join(f"{fpr:.1%}" for fpr in audit["config"]["fprs"])
    return {
        "file": "roc.png",
        "title": "Membership inference, the strongest attack on each policy",
        "alt": f"Log-log ROC curves. Members found at {fprs} false alarms: " + "; ".join(described) + ".",
        "private": False,
    }


def _epsilon(folder: Path, audit: Unjudged) -> Plot:
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axis = figure.subplots()
    colours, described = _colours(audit), []
    held = [bound for bound in audit["bounds"] if bound["claimed_epsilon"] is not None]
    for bound in held:
        label = f"{_shown(bound['policy'])}, {bound['surface']}: {bound['epsilon']:.2f}"
        described.append(
            f"{bound['policy']} {bound['surface']}: {bound['epsilon']:.2f} per {bound['unit']}, of at most "
            f"{bound['reachable_epsilon']:.2f}"
        )
        x, y = bound["claimed_epsilon"] or 0.0, bound["epsilon"]
        style: dict[str, Any] = {"color": colours[bound["policy"]], "marker": _MARKS[bound["surface"]]}
        axis.plot([x], [y], linestyle="none", markersize=8, label=label, **style)
        axis.plot([x], [bound["reachable_epsilon"]], color=style["color"], marker="_", markersize=14, markeredgewidth=2)
    top = 1.15 * max(max(bound["claimed_epsilon"] or 0.0, bound["reachable_epsilon"]) for bound in held)
    axis.plot([0, top], [0, top], color="#5b6770", linewidth=1)
    axis.fill_between([0, top], [0, top], [top, top], color="#b03060", alpha=0.08)
    axis.text(0.03, 0.96, "violation", transform=axis.transAxes, va="top", color="#b03060", fontsize=9)
    axis.set(xlim=(0, top), ylim=(-0.02 * top, top))
    axis.set_xlabel("claimed epsilon")
    axis.set_ylabel(f"lower bound, confidence {held[0]['confidence']:.1%} each")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, loc="center right")
    _save(figure, folder / "epsilon.png")
    return {
        "file": "epsilon.png",
        "title": "Lower bound on epsilon against the claim",
        "alt": "Lower bounds on epsilon: " + "; ".join(described) + ". Above the diagonal a claim is violated; a dash "
        "is the largest bound that could have been shown: below the diagonal the claim was not tested.",
        "private": False,
    }


def _leakage(folder: Path, audit: Unjudged) -> Plot:
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    leaked, stolen = figure.subplots(1, 2)
    colours = _colours(audit)
    fpr = f"{max(audit['config']['fprs']):g}"
    for policy, colour in colours.items():
        style: dict[str, Any] = {"color": colour, "marker": "s", "markersize": 4, "label": _shown(policy)}
        rows = _by_answers(row for row in audit["rows"] if row["policy"] == policy and row["attack"] == BOUND_ATTACK)
        if rows:
            leaked.plot([row["answers"] for row in rows], [100 * row["tpr_at"][fpr] for row in rows], **style)
        copies = _by_answers(model for model in audit["models"] if model["policy"] == policy)
        if copies:
            agreement = [100 * model["agreement"] for model in copies if "agreement" in model]
            stolen.plot([model["answers"] for model in copies], agreement, **style)
    leaked.axhline(100 * float(fpr), color="#5b6770", linestyle=":", label="guessing")
    leaked.set_ylabel(f"members found in the student, %\n({float(fpr):.1%} false alarms)")
    stolen.set_ylabel("student and teacher agree, % of images")
    asked = sorted({row["answers"] for row in audit["rows"] if row["answers"] is not None})
    for axis in (leaked, stolen):
        axis.set_xscale("log")
        axis.set_xticks(asked, [f"{answers:,}" for answers in asked])
        axis.minorticks_off()
        axis.set_xlabel("answers")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    _save(figure, folder / "leakage.png")
    return {
        "file": "leakage.png",
        "title": "What answers carry: membership, and the teacher's function",
        "alt": f"Left: members found in the student at {float(fpr):.1%} false alarms against answers. "
        "Right: agreement of student and teacher against answers.",
        "private": False,
    }


def _frontier(folder: Path, audit: Unjudged) -> Plot:
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    axis = figure.subplots()
    colours, described = _colours(audit), []
    fpr = f"{max(audit['config']['fprs']):g}"
    for row in strongest(audit["rows"]):
        model = next((m for m in audit["models"] if _place(m) == _place(row)), None)
        if model is None:
            continue
        x, y = 100 * row["tpr_at"][fpr], 100 * model["accuracy"]["mean"]
        described.append(f"{row['policy']} {row['surface']} {y:.0f} % right, {x:.1f} % found")
        style: dict[str, Any] = {"color": colours[row["policy"]], "marker": _MARKS[row["surface"]], "markersize": 7}
        axis.plot([x], [y], linestyle="none", label=f"{_shown(row['policy'])}, {row['surface']}", **style)
    axis.axvline(100 * float(fpr), color="#5b6770", linestyle=":", linewidth=1, label="guessing")
    axis.set_xlabel(f"members found at {float(fpr):.1%} false alarms, % (less is more private)")
    axis.set_ylabel("accuracy on held-out images, %")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
    _save(figure, folder / "frontier.png")
    return {
        "file": "frontier.png",
        "title": "Privacy against use",
        "alt": "Accuracy against members found: " + "; ".join(described) + ".",
        "private": False,
    }


def _shown(name: str) -> str:
    """A silo's or a policy's name as words of a picture: a dollar sign begins no formula, for the axes have their own.

    A legend would leave out one that begins with `_`.
    """
    words = printable(name, _LONGEST_NAME).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in any script
        figure.savefig(path, dpi=130)


def _place(item: Place) -> tuple[str, str, int | None]:
    return item["policy"], item["surface"], item["answers"]


def _points(row: AuditRow) -> tuple[list[float], list[float]]:
    pairs = [(x, y) for x, y in zip(row["curve"]["fpr"], row["curve"]["tpr"], strict=True) if y > 0]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _colours(audit: Unjudged) -> dict[str, str]:
    names = dict.fromkeys(row["policy"] for row in audit["rows"])
    return {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}


def _by_answers(items: Iterable[Item]) -> list[Item]:
    return sorted((item for item in items if item["answers"] is not None), key=lambda item: item["answers"] or 0)
