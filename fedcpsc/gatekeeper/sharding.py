"""Which shard a record belongs to: a keyed hash of the record alone.

Formal guarantee: adding or removing a record changes the content of exactly one shard. Dealing records by their
position would shift all later ones; dealing them in balanced blocks would move records to fill the gap. Both are caught
by the mechanism audit. The key is the silo's secret: without it nobody can aim records at a chosen shard.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.data.images import ImageSet
from fedcpsc.errors import DataError, explain

__all__ = ["KEY_FILE", "read_or_make_key", "record_ids", "shards_of", "unit_ids"]

KEY_FILE = "shard.key"


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
    """Id of each record's unit: of the record itself, or of the person it belongs to."""
    if images.persons is None:
        return record_ids(images.images, images.labels)
    return [hashlib.sha256(str(person).encode()).digest() for person in images.persons]


def shards_of(ids: list[bytes], key: bytes, shards: int) -> npt.NDArray[np.int64]:
    """Shard of each record, int64 [N] in [0, shards): HMAC-SHA256(key, id) mod shards.

    Args:
        ids: one for each record.
        key: secret, at least 16 bytes.
        shards: K >= 1.

    Raises:
        DataError: where the key is too short or K < 1.
    """
    if len(key) < 16 or shards < 1:
        raise DataError(
            explain("key, shards", (f"{len(key)} bytes", shards), "needs 16 bytes or more, >= 1", "make a new key")
        )
    hashed = (hmac.digest(key, one, "sha256") for one in ids)
    return np.array([int.from_bytes(digest, "big") % shards for digest in hashed], np.int64)


def read_or_make_key(folder: Path) -> bytes:
    """The silo's secret key, made on first use and readable by its owner alone."""
    path = folder / KEY_FILE
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path.read_bytes()
