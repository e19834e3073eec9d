# SPDX-License-Identifier: Apache-2.0
"""Integer Gaussian noise from the operating system's entropy, with the continuous Gaussian's exact guarantee.

What is drawn is round(Z), Z ~ N(0, sigma^2): the *rounded* Gaussian, not the discrete one. For a vector v of integers
v + round(Z) = round(v + Z), coordinate by coordinate, so a release is a post-processing of the continuous Gaussian
mechanism, which therefore bounds it exactly: mu-GDP with mu = sensitivity / sigma, under adaptive composition too. (The
discrete Gaussian has only its Rényi proof: 768 answers where this has 867, at K = 250, sigma = 0.1, epsilon = 8.) The
sum is exact integer arithmetic: no floating-point result is ever released whose low bits could betray v (Mironov 2012).

Drawn by inversion of a table of P(|round(Z)| > k), computed with mpmath to 128 bits. Each table entry is off by at most
2^-128 and the tail beyond the table holds less than that: the total variation distance from round(Z) is below
entries * 2^-127 a draw, under 1e-31 for every sigma allowed. Over 1e9 draws it adds less than 1e-18 to delta at
epsilon = 8; `gaussian_mu` rounds the budget down by more.

There is no seed: a seeded generator is not a source of privacy noise.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from fractions import Fraction
from functools import lru_cache

import mpmath
import numpy as np
import numpy.typing as npt

from fedcpsc.errors import PolicyError, explain

__all__ = ["LARGEST_SIGMA", "rounded_gaussian"]

LARGEST_SIGMA = 8192
"""A larger table takes seconds to make; fewer quantisation levels serve as well."""

_BITS = 128
_LOW = 64


def rounded_gaussian(sigma: Fraction, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Independent draws of round(N(0, sigma^2)), int64 of `shape`.

    Args:
        sigma: standard deviation before rounding, in (0, 8192].
        shape: shape of the draws.

    Raises:
        PolicyError: where sigma is out of range.
    """
    if not 0 < sigma <= LARGEST_SIGMA:
        raise PolicyError(
            explain(
                "sigma in levels", float(sigma), f"must be in (0, {LARGEST_SIGMA}]", "use fewer quantisation levels"
            )
        )
    thresholds, high = _table(sigma)
    count = math.prod(shape)
    drawn = np.frombuffer(os.urandom(8 * count), np.uint64)
    # magnitude = how many thresholds lie above the drawn number; `high` ascends and holds their upper 64 bits
    magnitude = len(high) - np.searchsorted(high, drawn, side="right")
    for index in np.flatnonzero(np.isin(drawn, high)):  # undecided in the upper bits: about never, but exactly
        number = int(drawn[index]) << _LOW | int.from_bytes(os.urandom(_LOW // 8), "little")
        magnitude[index] = len(thresholds) - bisect_right(thresholds, number)
    signs = np.unpackbits(np.frombuffer(os.urandom(-(-count // 8)), np.uint8), count=count)
    return np.where(signs == 1, magnitude, -magnitude).astype(np.int64).reshape(shape)


@lru_cache(maxsize=8)
def _table(sigma: Fraction) -> tuple[list[int], npt.NDArray[np.uint64]]:
    """2^128 P(|round(Z)| > k) for k = 0, 1, ..., ascending, rounded down; and the upper 64 bits of each."""
    descending: list[int] = []
    with mpmath.workprec(_BITS + 32):
        scale = 1 / (mpmath.mpf(sigma.numerator) / sigma.denominator * mpmath.sqrt(2))
        while not descending or descending[-1] > 0:
            tail = mpmath.erfc((len(descending) + mpmath.mpf(0.5)) * scale)
            descending.append(int(mpmath.ldexp(tail, _BITS)))
    thresholds = descending[::-1]
    return thresholds, np.array([number >> _LOW for number in thresholds], np.uint64)
