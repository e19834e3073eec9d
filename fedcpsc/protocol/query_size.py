# SPDX-License-Identifier: Apache-2.0
"""How many images a query may hold, so that its bytes stay within a bound: the same on both sides."""

from __future__ import annotations

import math

__all__ = ["images_of_bytes"]

_MEGABYTE = 10**6
_ENVELOPE = 4096  # bytes of a query beside its pixels, at most


def images_of_bytes(megabytes: float, image_shape: tuple[int, int, int]) -> int:
    """Number of images that a query of so many megabytes (10^6 bytes) holds, at least one.

    Args:
        megabytes: most bytes of the query, > 0.
        image_shape: (C, H, W).
    """
    return max(1, int(megabytes * _MEGABYTE - _ENVELOPE) // math.prod(image_shape))
