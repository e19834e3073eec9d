# SPDX-License-Identifier: Apache-2.0
"""Which of a silo's images its owner keeps from training, to judge students on: decided for each unit by itself.

A record, or a person with all records where persons are named, is set aside by a hash of itself and the seed alone. So
one unit more or less changes where no other goes, which a training with a guarantee takes for granted; a cut by places
in a list, or one of an exact size, would shift others.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fedcpsc.data.images import ImageSet
from fedcpsc.data.units import unit_ids

__all__ = ["set_aside"]


def set_aside(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and those that are held out.

    Args:
        images: images of one silo.
        share: probability by which a unit is held out, in [0, 1); how many are varies about it.
        seed: seed of the run.

    Returns:
        The second is None where the share is 0, or no unit falls to it.
    """
    if share == 0:
        return images, None
    threshold = int(share * 2**64)
    aside = np.array([_number(unit, seed) < threshold for unit in unit_ids(images)], np.bool_)
    if not aside.any():
        return images, None
    return images.subset(np.flatnonzero(~aside)), images.subset(np.flatnonzero(aside))


def _number(unit: bytes, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"fedcpsc held-out {seed} ".encode() + unit).digest()[:8], "big")
