# SPDX-License-Identifier: Apache-2.0
"""A noisy count: the number of held-out images that a given function classifies rightly.

Whoever asks chooses the function, from all that it has seen so far. The count is charged before it exists, and released
once: a replayed question gets the stored number, never fresh noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import PolicyError, explain
from fedcpsc.privacy.noise import rounded_gaussian

__all__ = ["ExactCount", "NoisyCount"]


@dataclass(frozen=True)
class ExactCount:
    """The count as it is.

    Formal guarantee: none (`dp: false`). One count can tell whether one image, with its label, is among those counted:
    the function that is right of this image alone counts 1 or 0. Only the number of counts is limited.
    """

    dp = False
    sigma = 0.0

    def cost(self) -> Fraction:
        """0: nothing is guaranteed, so nothing is counted but the evaluations."""
        return Fraction(0)

    def release(self, right: npt.NDArray[np.bool_]) -> int:
        """How many are True.

        Args:
            right: whether each image is classified rightly, bool [N].
        """
        return int(right.sum())


@dataclass(frozen=True)
class NoisyCount:
    """The count with integer Gaussian noise.

    Mechanism: sum of N truth values + round(N(0, sigma^2)), an integer (`noise.rounded_gaussian`).
    Formal guarantee: n counts are mu-GDP per unit, mu = m sqrt(n) / sigma, with functions chosen adaptively. Proof:
    each image's truth value is a function of this image, its label and the asker's function alone, and a unit has at
    most m images, which contribute between 0 and m. So the sum moves by at most m, under add/remove of a unit as well
    as where one unit is replaced by another; the rounded Gaussian is a post-processing of the Gaussian mechanism, which
    is exactly mu-GDP.
    Unit, relation: those of the ledger (record or person, add/remove).
    Accountant: the exact sum of mu^2, in which the answers' noise is counted, too (`accounting`).
    Composition: sequential with all else that the silo releases, training included. That is conservative: were
    the held-out units and those trained on known to be different, the larger of the two losses would do. But the same
    person may have images in both.
    Randomness: the operating system's (`os.urandom`), without a seed.

    | edge | |
    |---|---|
    | an image's output depends on which others are in its batch, by rounding | breaks the proof: images pass singly |
    | an output is NaN | counts as wrong; an error would disclose something that the noise does not cover |
    | a unit has more than m images | only its first m are counted, see `gatekeeper.held_out` |
    | the number N of images is told | not covered: it must be public, or not be told |
    | fresh noise for a replayed question | a new count; the ledger sends the stored reply instead |

    Args:
        sigma_exact: standard deviation of the noise, in images, in (0, 8192].
        images_per_unit: m, most images of one unit, >= 1.
    """

    sigma_exact: Fraction
    images_per_unit: int = 1

    dp = True

    def __post_init__(self) -> None:
        if self.sigma_exact <= 0 or self.images_per_unit < 1:
            got = (float(self.sigma_exact), self.images_per_unit)
            raise PolicyError(explain("sigma, images per unit", got, "must be > 0, >= 1", "fix the policy"))

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in images."""
        return float(self.sigma_exact)

    def cost(self) -> Fraction:
        """mu^2 of one count: (m / sigma)^2."""
        return (self.images_per_unit / self.sigma_exact) ** 2

    def release(self, right: npt.NDArray[np.bool_]) -> int:
        """How many are True, with noise: any integer.

        Args:
            right: whether each image is classified rightly, bool [N].
        """
        return int(right.sum()) + int(rounded_gaussian(self.sigma_exact, (1,))[0])
