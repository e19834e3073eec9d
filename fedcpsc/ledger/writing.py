# SPDX-License-Identifier: Apache-2.0
"""How rows get into a ledger: one durable transaction for each change, then the high-water mark.

    commit -> mark -> whatever depends on it leaves the silo

A crash between commit and mark leaves the mark behind, which is harmless: it notes less than the ledger holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedcpsc.errors import LedgerError, explain
from fedcpsc.ledger.chain import COLUMNS, SPENDING, Row, chain_hash
from fedcpsc.ledger.clock import RELEASED_NS, Clock, ClockEvent, Reading, iso_time
from fedcpsc.ledger.file import durable, to_format_2, translated
from fedcpsc.ledger.mark import HighWaterMark, older_than_mark
from fedcpsc.ledger.reading import LedgerReader
from fedcpsc.logs import fields

__all__ = ["LedgerWriter"]

log = logging.getLogger("fedcpsc.gatekeeper")

_OWN_TEXTS = ("principal", "query_id", "run", "payload", "model", "mechanism", "reply", "note")
_OWN_NUMBERS = {"sensitivity": 0.0, "sigma": 0.0, "answers": 0, "mu2": 0, "private": 0}


class LedgerWriter(LedgerReader):
    """A ledger whose rows can be added to; `Ledger` says which rows there are.

    Args:
        path: SQLite file.
        database: connection to it, for writing.
        mark: its high-water mark.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, mark: HighWaterMark) -> None:
        super().__init__(path, database, mark)
        self._file = _identity(path)
        self._clock = Clock()
        self._now: Reading | None = None  # of the clock, in the transaction under way

    def _prepare(self, version: int) -> None:
        """Sets the journal mode, and makes a file of version 1 one of version 2; its rows stay as they are."""
        with self._lock, translated(self.path):
            durable(self._db)
            if version > 1:
                return
            with self._transaction():
                (number,) = self._db.execute("PRAGMA user_version").fetchone()
                if number == 0:  # no other process was first
                    to_format_2(self._db)

    @contextlib.contextmanager
    def _writing(self, new_mark: bool = False) -> Iterator[Row]:
        """One durable transaction; yields the newest row (empty before the first). The mark follows the commit.

        Args:
            new_mark: begin the mark at the newest row afterwards, whatever was there.
        """
        with self._lock, translated(self.path):
            if _identity(self.path) != self._file:
                why, remedy = "was moved or replaced while open", "start again on the ledger that is there now"
                raise LedgerError(explain("ledger", str(self.path), why, remedy))
            self._now = None
            with self._transaction():
                before = self._head() or {}
                if not new_mark:
                    self._check_mark(before.get("seq", 0))
                yield before
            if self._now is not None:
                self._clock.keep(self._now)
                _tell(self._now)
            after = self._head()
            if after:
                move = self._mark.begin if new_mark else self._mark.advance
                move(after["seq"], after["hash"])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _check_mark(self, newest: int) -> None:
        seen = self._mark.read()
        if seen is None:
            remedy = "put it back; nothing is answered without it"
            raise LedgerError(explain("high_water_mark", str(self._mark.path), "is missing", remedy))
        if not self._holds(*seen):
            raise older_than_mark(newest, seen[0])

    def _append(self, kind: str, **facts: Any) -> int:
        """Adds a row, and before it one for a clock that went wrong; returns the row's number."""
        before = self._head() or {}
        if self._now is not None:
            return self._insert(kind, self._now.wall_ns, facts)
        self._now = now = self._clock.look(before.get("time_ns", 0))
        noted = {"note": json.dumps(now.event.note())} if now.event else {}
        if noted and before:
            self._insert("clock", now.wall_ns, noted)
        seq = self._insert(kind, now.wall_ns, facts)
        if noted and not before:  # nothing stands before the row of kind created
            self._insert("clock", now.wall_ns, noted)
        return seq

    def _insert(self, kind: str, wall: int, facts: Row) -> int:
        before = self._head() or {}
        row: Row = {name: before.get(name, 0) for name in COLUMNS}
        row |= dict.fromkeys(_OWN_TEXTS, "") | _OWN_NUMBERS | facts
        time_ns = wall if kind == "clock" else max(wall, before.get("time_ns", 0))
        row |= {"kind": kind, "seq": before.get("seq", 0) + 1, "time_ns": time_ns, "previous": before.get("hash", "")}
        if kind in SPENDING:
            row["answers_spent"] += row["answers"]
            row["mu2_spent"] += row["mu2"]
            row["unprotected"] += 0 if row["private"] else row["answers"]
        row["queries"] += kind == "charged"
        row["refused"] += kind == "refused"
        try:
            row["hash"] = chain_hash(row)
        except (TypeError, ValueError) as error:
            why = f"holds a value that no ledger keeps ({error})"
            raise LedgerError(explain(f"ledger row {kind}", row["query_id"], why, "give finite numbers")) from error
        marks = ", ".join("?" for _ in COLUMNS)
        self._db.execute(f"INSERT INTO events VALUES ({marks})", [row[name] for name in COLUMNS])  # noqa: S608
        return int(row["seq"])


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file under that name now."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _tell(now: Reading) -> None:
    """Warns the owner of a clock that went wrong."""
    event = now.event
    if event is None:
        return
    log.warning("the clock is not to be trusted", extra=fields(note=_warning(event)))


def _warning(event: ClockEvent) -> str:
    seconds = abs(event.to_ns - event.from_ns) / 10**9
    if event.to_ns < RELEASED_NS:
        constraint = "is before this software was made"
    elif event.how == "ahead":
        constraint = f"jumped ahead by {seconds:.0f} s, to which nobody can say whether it is right"
    else:
        constraint = f"is {seconds:.0f} s before {iso_time(event.from_ns)}, which was seen or expected"
    remedy = "set the machine's clock right, e.g. by NTP; charges stand, the ledger notes it, and answers go on"
    return explain("clock", iso_time(event.to_ns), constraint, remedy)
