# SPDX-License-Identifier: Apache-2.0
"""Class biases of a student, by what silos count on held-out images: it is to say each class as often as they have it.

A student that was fitted to answers about made images says some classes too often on real ones. Where silos tell, class
by class, how many images they have and how often the student says the class, the ratio is added to the logits (logit
adjustment, arXiv 2007.07314, with the student's own predictions in the place of the training set's shares; the shift of
label shift, arXiv 1802.03916, by counts alone): K numbers, which no image of a prior can tell. The constants were
chosen on training images of hands that no silo held, by one student.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.protocol.evaluation import EvaluationAnswer

__all__ = ["FIRST_STEP", "LEAST", "MOST", "SiloCounts", "class_biases", "is_better", "recall"]

Floats = npt.NDArray[np.float64]

FIRST_STEP = 0.5
"""Share of the logarithmic ratios by which logits are shifted first: all of it overshoots, since what one class loses
another gains, and images near a boundary cross it by the dozen. After a shift that is not kept, the next is half as
large."""
LEAST = 0.02
"""Shifts that move no logit further are not worth an evaluation."""
MOST = 3.0
"""No logit is moved further by all shifts together, against the mean of those that are: e^3 in the odds."""

_FIRST = 2.0  # images that each class is taken to have, and to be given, before the first is counted
_NOISES = 2.0  # standard deviations of the noise that are added to them: what noise alone may be moves nothing
_TOLD = 4.0  # standard deviations of the noise that a class's images must exceed for anything to be said of it
_LARGEST = 2.0  # of the logarithm of a ratio: with fewer images than that takes, noise alone brings it about
_SILOS_TO_OUTVOTE_ONE = 3


@dataclass(frozen=True, eq=False)
class SiloCounts:
    """One silo's counts in the federation's K classes.

    Attributes:
        images: number of its held-out images of each class, with noise, [K].
        right: number of those that the student classifies rightly, with noise, [K].
        predicted: number of its images that the student gives each class, with noise, [K]; of classes that are not the
            silo's it tells nothing.
        sigma: standard deviation of the noise on each number.
    """

    images: Floats
    right: Floats
    predicted: Floats
    sigma: float

    @classmethod
    def of(cls, answer: EvaluationAnswer, places: Sequence[int], classes: int) -> SiloCounts | None:
        """What a silo tells; None where it tells nothing class by class, or all of it may be noise.

        Args:
            answer: answer of the silo.
            places: the federation's class of each of the silo's own.
            classes: number of the federation's classes K.
        """
        told = answer.per_class
        if told is None or sum(told.images) < len(places) * answer.sigma:
            return None
        found = np.zeros((3, classes))
        found[:, list(places)] = told.images, told.right, told.predicted
        return cls(found[0], found[1], found[2], answer.sigma)


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Numbers of all silos, those of one with more images than the median silo reduced to as many; [K] each."""

    images: Floats
    right: Floats
    predicted: Floats
    noise: float

    @classmethod
    def of(cls, counts: Sequence[SiloCounts]) -> _Pooled:
        weights = np.array(_weights([float(one.images.sum()) for one in counts]))
        images, right, predicted = (
            np.maximum(weights @ np.stack(numbers), 0)
            for numbers in zip(*((one.images, one.right, one.predicted) for one in counts), strict=True)
        )
        return cls(images, right, predicted, float(np.linalg.norm(weights * [one.sigma for one in counts])))

    @property
    def enough(self) -> npt.NDArray[np.bool_]:
        """Whether there are images of each class that noise does not outweigh, bool [K]."""
        return self.images >= max(1.0, _TOLD * self.noise)


def class_biases(counts: Sequence[SiloCounts], step: float) -> Floats:
    """What is to be added to the logits of each class, float64 [K], of mean 0 over the classes that have images.

    Silos are pooled; one that says it has more images than the median silo counts as much as that one. Noise shrinks
    the biases towards 0. A class of which no silo has an image is not moved: nobody would see what it loses.

    Args:
        counts: counts of the silos, at least one.
        step: share of the logarithm of the ratios, in (0, 1].
    """
    pooled = _Pooled.of(counts)
    before = _FIRST + _NOISES * pooled.noise
    ratios = np.log((pooled.images + before) / (pooled.predicted + before))
    enough, biases = pooled.enough, np.zeros(len(ratios))
    if enough.any():
        biases[enough] = step * np.clip(ratios[enough], -_LARGEST, _LARGEST)
        biases[enough] -= biases[enough].mean()
    return biases


def recall(counts: Sequence[SiloCounts]) -> list[float | None]:
    """Share of each class's images that the student classifies rightly, all silos together, in [0, 1], K of them.

    None where there is no image of a class, or so few that noise outweighs them.

    Args:
        counts: counts of the silos, at least one.
    """
    pooled = _Pooled.of(counts)
    return [
        round(min(1.0, float(r / i)), 4) if told else None
        for r, i, told in zip(pooled.right, pooled.images, pooled.enough, strict=True)
    ]


def is_better(before: Mapping[str, EvaluationAnswer], after: Mapping[str, EvaluationAnswer]) -> bool:
    """Whether the silos together call more images right after than before, by more than their noise.

    Most of those that judged the student before must have judged it after: a silo that stays away decides nothing. Of
    two silos neither may lose. Of three or more it must not be one alone that says so: without the one that gains most,
    the others must not lose, neither image by image nor with large silos counted as the median one.

    Args:
        before, after: answers by the silo's name; those that gave both count.
    """
    both = [silo for silo in before if silo in after]
    if 2 * len(both) <= len(before):
        return False
    weights = _weights([_size(before[silo]) for silo in both])
    gains = [float(after[silo].right - before[silo].right) for silo in both]
    weighed = [w * gain for w, gain in zip(weights, gains, strict=True)]
    noise = math.sqrt(2) * math.hypot(*(w * before[silo].sigma for w, silo in zip(weights, both, strict=True)))
    if len(both) < _SILOS_TO_OUTVOTE_ONE:
        unopposed = min(gains) >= 0 or len(both) == 1
    else:
        unopposed = all(sum(each) - max(each) >= 0 for each in (gains, weighed))
    return unopposed and sum(weighed) > noise


def _weights(sizes: Sequence[float]) -> list[float]:
    """Weight of each silo's numbers: 1, and less for one with more images than the median silo."""
    known = [max(1.0, size) for size in sizes]
    middle = statistics.median(known)
    return [min(1.0, middle / size) for size in known]


def _size(answer: EvaluationAnswer) -> float:
    """Number of the silo's images, as far as it tells."""
    if answer.held_out is not None or answer.per_class is None:
        return float(answer.held_out or 1)
    return float(sum(answer.per_class.images))
