# SPDX-License-Identifier: Apache-2.0
"""What a ledger says, to whoever may read its file: totals, rows, soundness. Changes no byte.

    with contextlib.closing(Ledger.read("silo/ledger.sqlite")) as ledger:
        ledger.status()

Works on read-only files, folders and media, beside a running gatekeeper, and needs no high-water mark: it says how the
ledger stands to it. Torch-free and flwr-free: an owner reads the ledger at once.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fedcpsc.errors import LedgerError, explain
from fedcpsc.ledger.budget import Budget, Status
from fedcpsc.ledger.chain import ASKED, Row, verify_chain, verify_reply
from fedcpsc.ledger.file import check_file, connect_to_read, translated
from fedcpsc.ledger.mark import HighWaterMark, MarkState, default_mark, older_than_mark

__all__ = ["DATA_SET", "LedgerReader", "check_population", "checked", "missing", "opened"]

DATA_SET = "ds-"  # begins what an earlier version kept a ledger for
_PAGE = 1000
_REPLIES = 100


def checked(database: sqlite3.Connection) -> tuple[Row, int]:
    """The newest row and the format version of a file whose chain, indexes and schema are sound.

    Raises:
        LedgerError: naming the first fault.
    """
    version = check_file(database, whole=False)
    head = verify_chain(_rows(database))
    if head is None:
        raise LedgerError(explain("ledger", "no rows", "was never begun", "restore it: fedcpsc ledger restore"))
    return head, version


def _rows(database: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    return itertools.chain.from_iterable(_pages(database))


def _pages(database: sqlite3.Connection) -> Iterator[list[sqlite3.Row]]:
    """Every row, oldest first, in pages: a reader that holds the file for long would stop whoever writes."""
    after = 0
    while page := database.execute(
        "SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, _PAGE)
    ).fetchall():
        yield page
        after = page[-1]["seq"]


def opened(
    path: Path, connection: Callable[[Path], sqlite3.Connection], population: str | None, unit: str | None
) -> tuple[sqlite3.Connection, int]:
    """An existing ledger's file, open and checked, and its format version; nothing is changed yet.

    Args:
        path: file of the ledger.
        connection: function that opens it, for reading alone or for writing.
        population: name of the population that the ledger must be of; None takes any.
        unit: what one guarantee must protect; None takes the ledger's own.

    Raises:
        LedgerError: where the ledger is missing, of another population or unit, damaged, or tampered with.
    """
    if not path.is_file():
        raise missing(path)
    with translated(path):
        database = connection(path)
    try:
        with translated(path):
            head, version = checked(database)
        check_population(head, population, unit)
    except BaseException:
        database.close()
        raise
    return database, version


class LedgerReader:
    """A ledger open for reading. Get one from `Ledger.read`; several threads may share it.

    Args:
        path: the SQLite file.
        database: connection to it.
        mark: its high-water mark.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, mark: HighWaterMark) -> None:
        self.path = path
        self._db = database
        self._mark = mark
        self._lock = threading.RLock()

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        population: str | None = None,
        unit: str | None = None,
        high_water_mark: str | Path | None = None,
    ) -> LedgerReader:
        """An existing ledger, for reading alone; its hash chain and its indexes are checked.

        Args:
            path: the SQLite file.
            population: name of the population that the ledger must be of; None takes any.
            unit: what one guarantee must protect; None takes the ledger's own.
            high_water_mark: file of the mark to compare with; None for the one beside the ledger.

        Raises:
            LedgerError: where the ledger is missing, of another population, damaged, or tampered with.
        """
        path = Path(path)
        database, _ = opened(path, connect_to_read, population, unit)
        return LedgerReader(path, database, HighWaterMark(Path(high_water_mark or default_mark(path))))

    def close(self) -> None:
        """Closes the file; the ledger cannot be used afterwards."""
        with self._lock:
            self._db.close()

    def status(self) -> Status:
        """The totals now.

        Raises:
            LedgerError: where the file cannot be read.
        """
        with self._lock, translated(self.path):
            head = self._head()
        if head is None:
            raise LedgerError(explain("ledger", str(self.path), "was never begun", "run fedcpsc ledger init"))
        return Status(
            population=head["dataset_id"],
            unit=head["unit"],
            relation=head["relation"],
            delta=head["delta"],
            budget=Budget(head["answers_cap"], head["mu2_cap"]),
            spent=Budget(head["answers_spent"], head["mu2_spent"]),
            unprotected=head["unprotected"],
            queries=head["queries"],
            refused=head["refused"],
            events=head["seq"],
            head=head["hash"],
            time_ns=head["time_ns"],
        )

    def releases(self) -> list[Row]:
        """What left the silo beside answers, oldest first, also what was carried over from another ledger.

        Raises:
            LedgerError: where the file cannot be read.
        """
        return self._of_kind("released", "carried")

    def charges_of(self, mechanism: str) -> int:
        """Number of charges, carried ones too, whose mechanism's name begins with `mechanism`.

        Raises:
            LedgerError: where the file cannot be read.
        """
        with self._lock, translated(self.path):
            return self._charges_of(mechanism)

    def clock_events(self) -> list[Row]:
        """Rows that record a clock that went back or jumped ahead, oldest first.

        Raises:
            LedgerError: where the file cannot be read.
        """
        return self._of_kind("clock")

    def mark_state(self) -> MarkState:
        """How the ledger stands to its high-water mark.

        Raises:
            LedgerError: where the ledger cannot be read.
        """
        try:
            seen = self._mark.read()
        except LedgerError:
            return MarkState("unreadable", 0, self._mark.path)
        if seen is None:
            return MarkState("missing", 0, self._mark.path)
        with self._lock, translated(self.path):
            return MarkState("matches" if self._holds(*seen) else "ahead", seen[0], self._mark.path)

    def holds(self, seq: int, digest: str) -> bool:
        """Whether row `seq` is there and has the hash `digest`: then all before it is the same too.

        Raises:
            LedgerError: where the file cannot be read.
        """
        with self._lock, translated(self.path):
            return self._holds(seq, digest)

    def verify(self) -> Status:
        """Checks every row, every stored reply, the file itself, and that it is not older than its high-water mark.

        Raises:
            LedgerError: naming the first fault; a mark that is missing is none.
        """
        with self._lock, translated(self.path):
            check_file(self._db, whole=True)
            verify_chain(_rows(self._db))
            self._verify_replies()
        state = self.mark_state()
        if state.kind == "unreadable":
            self._mark.read()
        if state.kind == "ahead":
            raise older_than_mark(self.status().events, state.row)
        return self.status()

    def copy_to(self, database: sqlite3.Connection) -> None:
        """Copies the whole ledger at one moment into another database, which then keeps no journal beside it.

        Args:
            database: connection to an empty file.

        Raises:
            LedgerError: where the ledger cannot be read.
        """
        with self._lock, translated(self.path):
            self._db.backup(database)
            database.execute("PRAGMA journal_mode=DELETE")

    def export(self) -> Iterator[Row]:
        """Every row, oldest first, as plain values (replies only by their hash).

        Raises:
            LedgerError: where the file cannot be read.
        """
        pages = _pages(self._db)
        while True:
            with self._lock, translated(self.path):
                page = [dict(row) for row in next(pages, [])]
            if not page:
                return
            yield from page

    def _of_kind(self, *kinds: str) -> list[Row]:
        places = ", ".join("?" for _ in kinds)
        with self._lock, translated(self.path):
            rows = self._db.execute(f"SELECT * FROM events WHERE kind IN ({places}) ORDER BY seq", kinds)  # noqa: S608
            return [dict(row) for row in rows]

    def _head(self) -> Row | None:
        row = self._db.execute("SELECT * FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return dict(row) if row else None

    def _holds(self, seq: int, digest: str) -> bool:
        found = self._db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        return found is not None and found["hash"] == digest

    def _charges_of(self, mechanism: str) -> int:
        (count,) = self._db.execute(
            "SELECT COUNT(*) FROM events WHERE kind IN ('charged', 'carried') AND substr(mechanism, 1, ?) = ?",
            (len(mechanism), mechanism),
        ).fetchone()
        return int(count)

    def _asked(self, principal: str, query_id: str) -> Row | None:
        row = self._db.execute(
            f"SELECT * FROM events WHERE principal = ? AND query_id = ? AND {ASKED}",  # noqa: S608 - a constant
            (principal, query_id),
        ).fetchone()
        return dict(row) if row else None

    def _reply(self, principal: str, query_id: str) -> bytes | None:
        row = self._db.execute(
            "SELECT e.seq AS seq, e.reply AS hash, r.reply AS reply FROM events e LEFT JOIN replies r USING (seq)"
            " WHERE e.principal = ? AND e.query_id = ? AND e.kind = 'answered'",
            (principal, query_id),
        ).fetchone()
        if row is None:
            return None
        verify_reply(row["seq"], row["hash"], row["reply"])  # never sends what is not what was sent before
        return bytes(row["reply"])

    def _verify_replies(self) -> None:
        after = 0
        while True:
            page = self._db.execute(
                "SELECT e.seq AS seq, e.reply AS hash, r.reply AS reply FROM events e LEFT JOIN replies r USING (seq)"
                " WHERE e.kind = 'answered' AND e.seq > ? ORDER BY e.seq LIMIT ?",
                (after, _REPLIES),
            ).fetchall()
            for row in page:
                verify_reply(row["seq"], row["hash"], row["reply"])
            if len(page) < _REPLIES:
                return
            after = page[-1]["seq"]


def missing(path: Path) -> LedgerError:
    """The error of a ledger that is not there."""
    remedy = "restore it: fedcpsc ledger restore; only for a population that never had one: fedcpsc ledger init"
    return LedgerError(explain("ledger", str(path), "is missing", remedy))


def check_population(head: Row, population: str | None, unit: str | None) -> None:
    """Holds a ledger's newest row against the population and the unit that it must be of; None takes any.

    Raises:
        LedgerError: where one differs.
    """
    old = str(head["dataset_id"]).startswith(DATA_SET)
    remedy = (
        "it was made by an earlier version: fedcpsc ledger migrate SILO_DIR --population NAME"
        if old
        else "use that population's ledger, or name it anew: fedcpsc ledger population"
    )
    for name, found, wanted in (
        ("population", head["dataset_id"], population),
        ("unit", head["unit"], unit),
    ):
        if wanted is not None and found != wanted:
            raise LedgerError(explain(f"ledger {name}", found, f"must be {wanted!r}, the silo's own", remedy))
