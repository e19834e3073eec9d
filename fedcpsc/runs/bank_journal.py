# SPDX-License-Identifier: Apache-2.0
"""A bank's journal, read: its head, and the batches with who has answered them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fedcpsc.errors import BankError, explain
from fedcpsc.runs.bank_sums import SUM, LineSum, event_sum
from fedcpsc.runs.journal_head import JournalHead
from fedcpsc.strict_json import parse_mapping

__all__ = ["Batch", "replay"]


@dataclass
class Batch:
    """One query's rows in the bank.

    Attributes:
        query_id: id by which the silos know the batch.
        round: number of the round in which it was made, from 0.
        first, count: rows [first, first + count).
        answered: silos whose answers to all of it are banked.
        parts: rows that silos have answered of it so far, for those that have answered some and not all.
        lines: checksums of the journal's lines about it, as they were read.
    """

    query_id: str
    round: int
    first: int
    count: int
    answered: set[str] = field(default_factory=set)
    parts: dict[str, list[slice]] = field(default_factory=dict)
    lines: list[LineSum] = field(default_factory=list, compare=False)

    @property
    def rows(self) -> slice:
        """The batch's rows."""
        return slice(self.first, self.first + self.count)

    @property
    def heard(self) -> int:
        """Number of answers that are banked, of all silos and images: it grows with each reply."""
        return self.count * len(self.answered) + sum(_length(parts) for parts in self.parts.values())

    def answers_of(self, silo: str) -> int:
        """Number of the batch's images that the silo has answered."""
        return _length(self.answered_by(silo))

    def answered_by(self, silo: str) -> list[slice]:
        """Rows of the bank that the silo has answered, ascending and apart."""
        return [self.rows] if silo in self.answered else self.parts.get(silo, [])

    def missing_of(self, silo: str) -> list[slice]:
        """Rows of the bank that the silo has not answered, ascending and apart."""
        missing, first = [], self.first
        for part in [*self.answered_by(silo), slice(self.rows.stop, self.rows.stop)]:
            if part.start > first:
                missing.append(slice(first, part.start))
            first = part.stop
        return missing

    def add_part(self, silo: str, rows: slice) -> None:
        """Notes that the silo has answered these rows, of which it had answered none.

        Raises:
            ValueError: it had, or they are not the batch's.
        """
        if not any(hole.start <= rows.start < rows.stop <= hole.stop for hole in self.missing_of(silo)):
            raise ValueError(f"rows {rows.start} to {rows.stop} of {silo} are answered, or not of the batch")
        joined: list[slice] = []
        for part in sorted([*self.answered_by(silo), rows], key=lambda part: part.start):
            if joined and joined[-1].stop == part.start:
                joined[-1] = slice(joined[-1].start, part.stop)
            else:
                joined.append(part)
        if joined == [self.rows]:
            self.parts.pop(silo, None)
            self.answered.add(silo)
        else:
            self.parts[silo] = joined


def replay(path: Path, journal: bytes) -> tuple[JournalHead, list[Batch]]:
    """What a journal says: its head, and the batches with their answers.

    Args:
        path: path of the journal, for the error alone.
        journal: whole lines of the journal.

    Raises:
        BankError: it is damaged.
    """
    try:
        head, *events = [parse_mapping(line) for line in journal.splitlines()]
        batches: dict[str, Batch] = {}
        end = 0
        head_sum = head.pop(SUM, None)
        if head_sum is not None and head_sum != event_sum(head):
            raise ValueError("its first line does not have the checksum that it was written with")
        for event in events:
            total = event.pop(SUM, None)
            if "batch" in event:
                first, count, silo = int(event["first"]), int(event["count"]), None
                if first != end or count < 1:
                    raise ValueError(f"a batch of {count} begins at row {first}, the one before ends at row {end}")
                batch = batches[event["batch"]] = Batch(str(event["batch"]), int(event["round"]), first, count)
                end, rows = batch.rows.stop, batch.rows
            elif "part" in event:
                batch, silo = batches[event["part"]], str(event["silo"])
                rows = slice(int(event["first"]), int(event["first"]) + int(event["count"]))
                batch.add_part(silo, rows)
            else:
                batch, silo = batches[event["answered"]], str(event["silo"])
                rows = batch.rows
                batch.answered.add(silo)
            if total is None and head_sum is not None:
                raise ValueError(f"a line about rows {rows.start} to {rows.stop - 1} has no checksum")
            batch.lines.append(LineSum(silo, rows, event_sum(event), total))
    except (ValueError, KeyError, TypeError) as error:
        remedy = "restore the folder from a backup, or start a new run"
        raise BankError(explain("journal", str(path), f"is damaged ({error!r})", remedy)) from error
    return cast(JournalHead, head), list(batches.values())


def _length(rows: Sequence[slice]) -> int:
    return sum(part.stop - part.start for part in rows)
