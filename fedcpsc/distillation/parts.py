# SPDX-License-Identifier: Apache-2.0
"""A batch cut into queries that a silo takes: no more images than its policy allows, no more bytes than the run does.

A batch belongs to the whole federation, each silo's parts to that silo alone: one that takes few images at once is sent
more queries, and no other silo's queries change. A part's id follows from the batch's id and its rows, so that a
resumed run asks for the same parts under the same ids, which the silo's ledger answers uncharged.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from fedcpsc.runs.bank_journal import Batch

__all__ = ["Part", "parts_of", "query_ids"]


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


def parts_of(batch: Batch, silo: str, most: int, teacher: int = 0) -> list[Part]:
    """What the silo has not answered of a batch, in parts of at most `most` images, in the batch's order.

    Parts begin at multiples of `most`, whatever has been answered: those of a resumed run are those of the run before.

    Args:
        batch: batch of the bank.
        silo: name of the silo.
        most: most images of a part, >= 1.
        teacher: number of the silo's earlier teachers that may have been asked about the batch, >= 0. Under their ids
            its ledger would return what they answered.
    """
    parts = []
    for hole in batch.missing_of(silo):
        start = hole.start
        while start < hole.stop:
            stop = min(hole.stop, start + most - (start - batch.first) % most)
            parts.append(Part(_query_id(batch, start, stop, teacher), batch, slice(start, stop)))
            start = stop
    return parts


def query_ids(batch: Batch, most: int, teacher: int = 0) -> list[str]:
    """Ids of all queries that ask a silo about a batch in parts of at most `most` images, answered or not.

    Args:
        batch: batch of a bank.
        most: most images of a query to the silo, >= 1.
        teacher: argument of `parts_of`.
    """
    starts = range(batch.rows.start, batch.rows.stop, most)
    return [_query_id(batch, start, min(batch.rows.stop, start + most), teacher) for start in starts]


def _query_id(batch: Batch, start: int, stop: int, teacher: int) -> str:
    own = f"/teacher-{teacher}" if teacher else ""
    if not own and (start, stop) == (batch.rows.start, batch.rows.stop):
        return batch.query_id
    return sha256(f"{batch.query_id}{own}/{start - batch.first}/{stop - start}".encode()).hexdigest()[:32]
