# SPDX-License-Identifier: Apache-2.0
"""A student's class biases, fitted to unlabelled pictures of which it is known how often each class occurs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.data.decode import PictureForm
from fedcpsc.data.reading import ReadingReport
from fedcpsc.data.sources import evaluation_images
from fedcpsc.data.unlabelled import read_unlabelled
from fedcpsc.distillation.evaluate import accuracy, predict, predicted_classes
from fedcpsc.errors import ConfigError, DataError, FedcpscError, RunError, explain
from fedcpsc.models.class_biases import class_biases_for, head_biases
from fedcpsc.plain_yaml import NotPlain, load_plain
from fedcpsc.printable import printable
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.student import Student

__all__ = ["FEWEST_A_CLASS", "FittedBiases", "fit_class_biases", "read_shares"]

FEWEST_A_CLASS = 5
"""Pictures for each class of the student, in the mean: among fewer the classes are too unequal by chance, and a good
student loses by it (`benchmarks/unlabelled.py`)."""

_PICTURES, _SHARES = "--unlabelled", "--class-shares"
_DOUBTFUL = 3.0  # a bias so large means odds 20 times as high: the stated shares, or the pictures, may be others
_NAMED = 5

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FittedBiases:
    """What was done, as `export.json` holds it; lists are by class.

    Attributes:
        pictures: number of pictures N.
        uniform: whether every class was taken to occur as often as every other, because nothing else was said.
        shares: share of each class among such pictures, of sum 1.
        before: mean predicted probability of each class before.
        after: the same after.
        biases: what was added to the logits.
        accuracy: share of the run's held-out images that the student classifies rightly now, in [0, 1]; None where it
            was not measured.
        not_measured: reason for that; None where it was, or the run had no held-out images.
    """

    pictures: int
    uniform: bool
    shares: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    biases: tuple[float, ...]
    accuracy: float | None = None
    not_measured: str | None = None

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def in_words(self, accuracy_before: float | None) -> str:
        """One or two sentences.

        Args:
            accuracy_before: accuracy of the student as it was fitted, in [0, 1]; None where it was not measured.
        """
        shares = "that each class is as frequent as every other" if self.uniform else "the stated class shares"
        told = f"Class biases were fitted to {self.pictures:,} unlabelled pictures, assuming {shares}."
        if self.accuracy is not None and accuracy_before is not None:
            now, then = (f"{100 * value:.1f} %" for value in (self.accuracy, accuracy_before))
            told += f" Accuracy on the held-out images of the run: {now}, {then} before."
        elif self.not_measured is not None:
            told += f" The accuracy since then was not measured: {self.not_measured}."
        return told

    def lines(self, names: tuple[str, ...], accuracy_before: float | None) -> Iterator[str]:
        """What to show on a terminal.

        Args:
            names: names of the K classes.
            accuracy_before: argument of `in_words`.
        """
        yield self.in_words(accuracy_before)
        moved = sorted(range(len(names)), key=lambda k: -abs(self.biases[k]))[:_NAMED]
        for k in moved:
            before, after, share = (f"{100 * values[k]:.1f} %" for values in (self.before, self.after, self.shares))
            yield f"  {printable(names[k])}: mean probability {before} before, {after} after; assumed share {share}"
        if doubtful := [names[k] for k in moved if abs(self.biases[k]) > _DOUBTFUL]:
            yield (
                f"  doubtful: {', '.join(map(printable, doubtful))}. The student predicts other classes there than the"
                f" shares say by far: are these pictures of its classes, and are the shares right ({_SHARES})?"
            )


def fit_class_biases(
    run: RunFacts, student: Student, pictures: Path | Images, class_shares: Path | Mapping[str, float] | None
) -> tuple[FittedBiases, ReadingReport | None]:
    """Changes the student in place, so that it predicts each class of such pictures as often as it occurs.

    Args:
        run: facts of a finished run.
        student: its student.
        pictures: place of the pictures (argument of `read_unlabelled`), which are brought to the student's shape as
            `data.resize` says; or the pictures themselves in that shape, uint8 [N, C, H, W].
        class_shares: argument of `read_shares`; None takes every class to occur as often as every other.

    Returns:
        (what was done; report on the reading, None where the pictures were given).

    Raises:
        ConfigError: the shares cannot be used.
        DataError: the pictures cannot be read, or are too few.
        RunError: the student's logits are not those of a linear layer with biases.
    """
    names = student.shown_names
    shares = np.full(len(names), 1 / len(names)) if class_shares is None else read_shares(class_shares, names)
    biases = head_biases(student.network)
    if biases is None:
        constraint = "does not end in a linear layer with biases, which could be shifted"
        raise RunError(explain("student", student.architecture, constraint, f"leave {_PICTURES} out"))
    report = None
    if isinstance(pictures, Path):
        images, report = _read(run, student, pictures)
    else:
        images = pictures
        if len(images) < (fewest := FEWEST_A_CLASS * len(names)):
            constraint = f"there must be at least {fewest} pictures, {FEWEST_A_CLASS} for each class"
            raise DataError(explain("unlabelled", len(images), constraint, "give more pictures"))
    before = predict(student.network, images)
    shift = class_biases_for(np.log(np.maximum(before, np.finfo(np.float32).tiny)), shares)
    with torch.no_grad():
        biases.add_(torch.from_numpy(shift).to(biases))
    measured, reason = _measured(run, student)
    listed = {
        "shares": shares,
        "before": before.mean(0),
        "after": predict(student.network, images).mean(0),
        "biases": shift,
    }
    rounded = {key: tuple(round(float(value), 4) for value in values) for key, values in listed.items()}
    return FittedBiases(len(images), class_shares is None, **rounded, accuracy=measured, not_measured=reason), report


def _read(run: RunFacts, student: Student, place: Path) -> tuple[Images, ReadingReport]:
    channels, height, width = student.image_shape
    if channels not in (1, 3):
        constraint = f"the student's images have {channels} channels, pictures have 1 (grey) or 3 (colour)"
        raise RunError(explain(_PICTURES, str(place), constraint, f"leave {_PICTURES} out"))
    form = PictureForm((height, width), channels, run.config.data.resize, run.config.data.background)
    return read_unlabelled(place, form, FEWEST_A_CLASS * len(student.shown_names), _PICTURES)


def read_shares(given: Path | Mapping[str, float], names: tuple[str, ...]) -> Floats:
    """How often each class occurs, as shares of sum 1, float64 [K].

    Args:
        given: a share, or a number of pictures, of each class by its name: any numbers > 0; or a YAML file of them.
        names: names of the K classes.

    Raises:
        ConfigError: the file cannot be read, or a class is missing, there are others, or a number is not > 0.
    """
    key, shown = (_SHARES, str(given)) if isinstance(given, Path) else ("class_shares", given)
    example = f"give each class a number, such as {names[0]}: 0.25"
    by_name = _load(given) if isinstance(given, Path) else given
    if not isinstance(by_name, Mapping):
        raise ConfigError(explain(key, shown, "must give each class a number, by its name", example))
    found = {str(name): value for name, value in by_name.items()}
    wrong = [] if len(found) == len(by_name) else ["gives a class two numbers"]
    wrong += [f"lacks {name}" for name in names if name not in found]
    wrong += [f"has {name}, which is no class" for name in found if name not in names]
    if wrong:
        raise ConfigError(explain(key, shown, printable("; ".join(wrong[:_NAMED])), example))
    for name in names:
        value = found[name]
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            constraint = "must be a number > 0; a class that never occurs takes a small one"
            raise ConfigError(explain(f"{key} {printable(name)}", value, constraint, example))
    shares = np.array([float(found[name]) for name in names])
    return np.asarray(shares / shares.sum(), np.float64)


def _load(path: Path) -> Any:
    try:
        return load_plain(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(explain(_SHARES, str(path), f"cannot be read ({error.strerror})", "check it")) from error
    except (NotPlain, ValueError) as error:
        raise ConfigError(explain(_SHARES, str(path), f"is no plain YAML: {error}", "check it")) from error


def _measured(run: RunFacts, student: Student) -> tuple[float | None, str | None]:
    """(accuracy on the run's held-out images; else the reason, None where the run had none)."""
    if run.result is None or run.result["student"]["accuracy"] is None:
        return None, None
    try:
        held_out = evaluation_images(run.config)
    except FedcpscError as error:
        return None, str(error)
    if held_out is None or len(held_out) != run.result["evaluation_images"]:
        return None, "the held-out images of the run are not there any more"
    return accuracy(predicted_classes(student.network, held_out), held_out), None
