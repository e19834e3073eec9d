# SPDX-License-Identifier: Apache-2.0
"""Names of records, and of the units that are protected as a whole: records, or the persons behind them where named."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fedcpsc.data.images import ImageSet  # imports torch

__all__ = ["record_ids", "unit_ids", "unit_numbers"]


def record_ids(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> list[bytes]:
    """A record's id from its content: equal records share a shard, whatever their order.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """
    whole = labels.astype("<i8")
    return [
        hashlib.sha256(label.tobytes() + image.tobytes()).digest() for image, label in zip(images, whole, strict=True)
    ]


def unit_ids(images: ImageSet) -> list[bytes]:
    """Id of each record's unit, 32 bytes: the record's own (`record_ids`), or SHA-256 of its person's id.

    Args:
        images: N records.
    """
    if images.persons is None:
        return record_ids(images.images, images.labels)
    return [hashlib.sha256(person.encode()).digest() for person in images.persons.tolist()]


def unit_numbers(images: ImageSet) -> npt.NDArray[np.int64]:
    """Number of each record's unit, int64 [N] in [0, U). Equal records are as many units.

    Args:
        images: N records.
    """
    if images.persons is None:
        return np.arange(len(images), dtype=np.int64)
    return np.unique(images.persons, return_inverse=True)[1].astype(np.int64)
