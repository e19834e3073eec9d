# SPDX-License-Identifier: Apache-2.0
"""Noisy counts over held-out images: how many a given function classifies rightly, also class by class.

Whoever asks chooses the function, from all that it has seen so far. The counts are charged before they exist, and
released once: a replayed question gets the stored numbers, never fresh noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import PolicyError, explain
from fedcpsc.privacy.noise import rounded_gaussian

__all__ = ["ExactCounts", "NoisyCounts"]


@dataclass(frozen=True)
class ExactCounts:
    """The counts as they are.

    Formal guarantee: none (`dp: false`). One count can tell whether one image, with its label, is among those counted:
    the function that is right of this image alone counts 1 or 0. Several counts tell of several images at once. Only
    the number of evaluations is limited.
    """

    dp = False
    sigma = 0.0
    sensitivity = 0.0

    def cost(self) -> Fraction:
        """0: nothing is guaranteed, so nothing is counted but the evaluations."""
        return Fraction(0)

    def release(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The same counts.

        Args:
            counts: numbers of images, int64 [n].
        """
        return counts


@dataclass(frozen=True)
class NoisyCounts:
    """The counts with integer Gaussian noise.

    Mechanism: each count + round(N(0, sigma^2)), drawn for itself: integers (`noise.rounded_gaussian`). The counts are
    those of h histograms: in each of them an image lies in one cell, or in none.
    Formal guarantee: n releases are mu-GDP per unit, mu = m sqrt(h n) / sigma, with functions chosen adaptively. Proof:
    in which cell an image lies is a function of this image, its label and the asker's function alone, and a unit has at
    most m images. Without the unit the cells of a histogram are smaller by whole numbers that sum to at most m, whose
    Euclidean norm is at most m, too: largest where all lie in one cell. Over h histograms it is at most m sqrt(h). The
    rounded Gaussian is a post-processing of the Gaussian mechanism, which is exactly mu-GDP.
    Unit, relation: those of the ledger (record or person, add/remove). One count alone moves no further where a unit is
    replaced by another; several cells do.
    Accountant: the exact sum of mu^2, in which the answers' noise is counted, too (`accounting`).
    Composition: sequential with all else that the silo releases, training included. That is conservative: were
    the held-out units and those trained on known to be different, the larger of the two losses would do. But the same
    person may have images in both.
    Randomness: the operating system's (`os.urandom`), without a seed.

    | edge | |
    |---|---|
    | an image's output depends on which others are in its batch, by rounding | breaks the proof: images pass singly |
    | an output is NaN | in no cell; an error would disclose something that the noise does not cover |
    | a unit has more than m images | only its first m are counted, see `gatekeeper.held_out` |
    | the number N of images is told | not covered: it must be public, or not be told |
    | fresh noise for a replayed question | a new release; the ledger sends the stored reply instead |

    Args:
        sigma_exact: standard deviation of the noise on each count, in images, in (0, 8192].
        images_per_unit: m, most images of one unit, >= 1.
        histograms: h, number of histograms, >= 1.
    """

    sigma_exact: Fraction
    images_per_unit: int = 1
    histograms: int = 1

    dp = True

    def __post_init__(self) -> None:
        if self.sigma_exact <= 0 or self.images_per_unit < 1 or self.histograms < 1:
            got = (float(self.sigma_exact), self.images_per_unit, self.histograms)
            constraint = "must be > 0, >= 1, >= 1"
            raise PolicyError(explain("sigma, images per unit, histograms", got, constraint, "fix the policy"))

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise on each count, in images."""
        return float(self.sigma_exact)

    @property
    def sensitivity(self) -> float:
        """Euclidean distance that one unit moves all counts together, at most: m sqrt(h), in images."""
        return self.images_per_unit * math.sqrt(self.histograms)

    def cost(self) -> Fraction:
        """mu^2 of one release: h (m / sigma)^2."""
        return self.histograms * (self.images_per_unit / self.sigma_exact) ** 2

    def release(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The counts with noise: any integers, int64 [n].

        Args:
            counts: numbers of images in all cells of all histograms, int64 [n].
        """
        return counts + rounded_gaussian(self.sigma_exact, counts.shape)
