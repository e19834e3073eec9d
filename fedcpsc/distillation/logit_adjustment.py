# SPDX-License-Identifier: Apache-2.0
"""Class biases of a student, by what silos count on held-out images: it is to say each class as often as they have it.

A student that was fitted to answers about made images says some classes too often on real ones. Where silos tell, class
by class, how many images they have and how often the student says the class, the ratio is added to the logits (logit
adjustment, arXiv 2007.07314, with the student's own predictions in the place of the training set's shares; the shift of
label shift, arXiv 1802.03916, by counts alone): K numbers, which no image of a prior can tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.protocol.evaluation import EvaluationAnswer

__all__ = ["SiloCounts", "class_biases", "is_better"]

Floats = npt.NDArray[np.float64]

_FIRST = 1.0  # images that each class is taken to have, and to be given, before the first is counted
_NOISES = 2.0  # standard deviations of the noise that are added to them: what noise alone may be moves nothing
_LARGEST = 2.0  # no class is made more than e^2 times as likely, or as unlikely, against the others at once
_SILOS_TO_OUTVOTE_ONE = 3


@dataclass(frozen=True, eq=False)
class SiloCounts:
    """One silo's counts in the federation's K classes.

    Attributes:
        images: number of its held-out images of each class, with noise, [K].
        predicted: number of its images that the student gives each class, with noise, [K].
        sigma: standard deviation of the noise on each number.
    """

    images: Floats
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
        images = np.zeros(len(told.predicted))
        images[list(places)] = told.images
        return cls(images, np.array(told.predicted, np.float64), answer.sigma)


def class_biases(counts: Sequence[SiloCounts]) -> Floats:
    """What is to be added to the logits of each class, float64 [K], of mean 0.

    Silos are pooled; one that says it has more images than the median silo counts as much as that one. Noise shrinks
    the biases towards 0.

    Args:
        counts: counts of the silos, at least one.
    """
    weights = np.array(_weights([float(one.images.sum()) for one in counts]))
    noise = float(np.linalg.norm(weights * [one.sigma for one in counts]))
    have, say = (
        np.maximum(weights @ np.stack(numbers), 0) + _FIRST + _NOISES * noise
        for numbers in ([one.images for one in counts], [one.predicted for one in counts])
    )
    biases: Floats = np.clip(np.log(have / say), -_LARGEST, _LARGEST)
    biases -= biases.mean()
    return biases


def is_better(before: Mapping[str, EvaluationAnswer], after: Mapping[str, EvaluationAnswer]) -> bool:
    """Whether the silos together call more images right after than before.

    Of three silos or more it must not be one alone that says so: without the one that gains most, the others must not
    lose. So no single silo can have a change kept that makes the student worse at the others.

    Args:
        before, after: answers by the silo's name; those that gave both count.
    """
    both = [silo for silo in before if silo in after]
    if not both:
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
