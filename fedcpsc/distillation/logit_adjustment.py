# SPDX-License-Identifier: Apache-2.0
"""Class biases of a student, by what silos count on held-out images: it is to say each class as often as they have it.

A student that was fitted to answers about made images says some classes too often on real ones. Where silos tell, class
by class, how many images they have and how often the student says the class, the ratio is added to the logits (logit
adjustment, arXiv 2007.07314, with the student's own predictions in the place of the training set's shares; the shift of
label shift, arXiv 1802.03916, by counts alone): K numbers, which no image of a prior can tell. The constants were
chosen on training images of hands that no silo held, by one student.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.protocol.evaluation import EvaluationAnswer

__all__ = ["FIRST_STEP", "SiloCounts", "class_biases", "is_better", "recall"]

Floats = npt.NDArray[np.float64]

FIRST_STEP = 0.5
"""Share of the logarithmic ratios by which logits are shifted first: all of it overshoots, since what one class loses
another gains, and images near a boundary cross it by the dozen. After a shift that is not kept, the next is half as
large."""

_FIRST = 2.0  # images that each class is taken to have, and to be given, before the first is counted
_NOISES = 2.0  # standard deviations of the noise that are added to them: what noise alone may be moves nothing
_LARGEST = 2.0  # of the logarithm of a ratio: with fewer images than that takes, noise alone brings it about
_SILOS_TO_OUTVOTE_ONE = 3
_TOLD = 4.0  # a class with fewer images than so many standard deviations of the noise has no share worth telling


@dataclass(frozen=True, eq=False)
class SiloCounts:
    """One silo's counts in the federation's K classes.

    Attributes:
        images: number of its held-out images of each class, with noise, [K].
        right: number of those that the student classifies rightly, with noise, [K].
        predicted: number of its images that the student gives each class, with noise, [K].
        sigma: standard deviation of the noise on each number.
    """

    images: Floats
    right: Floats
    predicted: Floats
    sigma: float

    @classmethod
    def of(cls, answer: EvaluationAnswer, places: Sequence[int]) -> SiloCounts | None:
        """What a silo tells; None where it tells nothing class by class.

        Args:
            answer: answer of the silo.
            places: the federation's class of each of the silo's own.
        """
        told = answer.per_class
        if told is None:
            return None
        images, right = np.zeros((2, len(told.predicted)))
        images[list(places)], right[list(places)] = told.images, told.right
        return cls(images, right, np.array(told.predicted, np.float64), answer.sigma)


def class_biases(counts: Sequence[SiloCounts], step: float) -> Floats:
    """What is to be added to the logits of each class, float64 [K], of mean 0.

    Silos are pooled; one that says it has more images than the median silo counts as much as that one. Noise shrinks
    the biases towards 0.

    Args:
        counts: counts of the silos, at least one.
        step: share of the logarithm of the ratios, in (0, 1].
    """
    weights = np.array(_weights([float(one.images.sum()) for one in counts]))
    noise = float(np.linalg.norm(weights * [one.sigma for one in counts]))
    have, say = (
        np.maximum(weights @ np.stack(numbers), 0) + _FIRST + _NOISES * noise
        for numbers in ([one.images for one in counts], [one.predicted for one in counts])
    )
    biases: Floats = step * np.clip(np.log(have / say), -_LARGEST, _LARGEST)
    biases -= biases.mean()
    return biases


def recall(counts: Sequence[SiloCounts]) -> list[float | None]:
    """Share of each class's images that the student classifies rightly, all silos together, in [0, 1], K of them.

    None where there is no image of a class, or so few that noise outweighs them.

    Args:
        counts: counts of the silos, at least one.
    """
    images, right = np.sum([one.images for one in counts], 0), np.sum([one.right for one in counts], 0)
    noise = float(np.linalg.norm([one.sigma for one in counts]))
    return [
        round(min(1.0, max(0.0, float(r / i))), 4) if i >= max(1.0, _TOLD * noise) else None
        for r, i in zip(right, images, strict=True)
    ]


def is_better(before: Mapping[str, EvaluationAnswer], after: Mapping[str, EvaluationAnswer]) -> bool:
    """Whether the silos together call more images right after than before.

    Most of those that judged the student before must have judged it after: a silo that stays away decides nothing. Of
    three silos or more it must not be one alone that says so: without the one that gains most, the others must not
    lose. So no single silo can have a change kept that makes the student worse at the others.

    Args:
        before, after: answers by the silo's name; those that gave both count.
    """
    both = [silo for silo in before if silo in after]
    if 2 * len(both) <= len(before):
        return False
    sizes = [_size(before[silo]) for silo in both]
    gains = [w * (after[s].right - before[s].right) for w, s in zip(_weights(sizes), both, strict=True)]
    outvoted = len(gains) < _SILOS_TO_OUTVOTE_ONE or sum(gains) - max(gains) >= 0
    return sum(gains) > 0 and outvoted


def _weights(sizes: Sequence[float]) -> list[float]:
    """Weight of each silo's numbers: 1, and less for one with more images than the median silo."""
    known = [max(1.0, size) for size in sizes]
    middle = statistics.median(known)
    return [min(1.0, middle / size) for size in known]


def _size(answer: EvaluationAnswer) -> float:
    if answer.held_out is not None:
        return float(answer.held_out)
    return 1.0 if answer.per_class is None else float(sum(answer.per_class.images))
