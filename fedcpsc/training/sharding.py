# SPDX-License-Identifier: Apache-2.0
"""Whose a record is, and which shard it belongs to: a keyed hash of the unit alone.

The unit of protection is the record, or the person with all its records where the images name persons.

Formal guarantee: adding or removing a unit changes the content of exactly one shard. Dealing by position would shift
all later ones, and dealing in balanced blocks would move records to fill the gap: the mechanism audit catches both.
Dealing a person's records one by one would spread the person over many shards. The key is the silo's secret: without it
nobody can aim records at a chosen shard.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import DataError, explain
from fedcpsc.teachers.proof import Unit

if TYPE_CHECKING:
    from fedcpsc.data.images import ImageSet  # imports torch

__all__ = ["KEY_FILE", "read_or_make_key", "shards_of", "unit_of"]

KEY_FILE = "shard.key"


def unit_of(images: ImageSet) -> Unit:
    """What a training on these images protects: persons where they are named, else records."""
    return "record" if images.persons is None else "person"


def shards_of(ids: list[bytes], key: bytes, shards: int) -> npt.NDArray[np.int64]:
    """Shard of each record, int64 [N] in [0, shards): HMAC-SHA256(key, id) mod shards.

    Args:
        ids: id of each record's unit (`unit_ids`).
        key: secret key, at least 16 bytes.
        shards: number K of shards, >= 1.

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
