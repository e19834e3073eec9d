# SPDX-License-Identifier: Apache-2.0
"""A batch cut into queries that a silo takes: no more images than its policy allows, no more bytes than the run does.

A batch belongs to the whole federation, each silo's parts to that silo alone: one that takes few images at once is sent
more queries, and no other silo's queries change. A part's id follows from the batch's id and its rows, so that a
resumed run asks for the same parts under the same ids, which the silo's ledger answers uncharged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from fedcpsc.runs.bank_index import Batch

__all__ = ["Part", "images_of_bytes", "parts_of"]

_MEGABYTE = 10**6
_ENVELOPE = 4096  # bytes of a query beside its pixels, at most


@dataclass(frozen=True)
class Part:
    """The images of one query.

    Attributes:
        query_id: id by which the silo knows it.
        batch: batch that the images are of.
        rows: their rows in the bank.
    """

    query_id: str
    batch: Batch
    rows: slice

    @property
    def count(self) -> int:
        """Number of images, >= 1."""
        return int(self.rows.stop - self.rows.start)

    @property
    def round(self) -> int:
        """Number of the round in which the batch was made, from 0."""
        return self.batch.round

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the batch."""
        return self.rows == self.batch.rows


def parts_of(batch: Batch, silo: str, most: int) -> list[Part]:
    """What the silo has not answered of a batch, in parts of at most `most` images, in the batch's order.

    Parts begin at multiples of `most`, whatever has been answered: those of a resumed run are those of the run before.
    """
    parts = []
    for hole in batch.missing_of(silo):
        start = hole.start
        while start < hole.stop:
            stop = min(hole.stop, start + most - (start - batch.first) % most)
            parts.append(Part(_query_id(batch, start, stop), batch, slice(start, stop)))
            start = stop
    return parts


def images_of_bytes(megabytes: float, image_shape: tuple[int, int, int]) -> int:
    """Number of images that a query of so many megabytes (10^6 bytes) holds, at least one."""
    return max(1, int(megabytes * _MEGABYTE - _ENVELOPE) // math.prod(image_shape))


def _query_id(batch: Batch, start: int, stop: int) -> str:
    if (start, stop) == (batch.rows.start, batch.rows.stop):
        return batch.query_id
    return sha256(f"{batch.query_id}/{start - batch.first}/{stop - start}".encode()).hexdigest()[:32]
