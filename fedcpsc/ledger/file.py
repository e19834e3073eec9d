# SPDX-License-Identifier: Apache-2.0
"""The SQLite file under the ledger: how it is opened, what is checked before anything is believed, errors in words.

The rollback journal keeps all that is committed in the one file: a copy of it, begun after a reply was sent, holds that
reply's charge, or is torn and found to be. A write-ahead log would keep the newest charges in a second file. Of the
rollback modes that are durable when a machine loses power, PERSIST was the fastest (benchmarks/ledger_journal.py).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fedcpsc.errors import LedgerError, explain
from fedcpsc.ledger.chain import FORMAT_VERSION, schema

__all__ = [
    "JOURNAL_MODE",
    "SYNCHRONOUS",
    "check_file",
    "connect",
    "connect_to_read",
    "durable",
    "to_format_2",
    "translated",
]

WAIT_S = 30.0
JOURNAL_MODE, SYNCHRONOUS = "PERSIST", "FULL"
_TORN = (
    "it is damaged, or was copied while it was written: copy with fedcpsc ledger backup, restore with ledger restore"
)
_WAL_FORMAT = b"\x02\x02"  # bytes 18 and 19 of the file
_READONLY_ROLLBACK = 776


def connect(path: Path) -> sqlite3.Connection:
    """The existing file, for reading and writing, transactions begun by hand; `durable` before the first write."""
    return _connected(path, "mode=rw")


def durable(database: sqlite3.Connection) -> None:
    """Sets the journal mode; every commit is on the disk before it returns. An older ledger leaves its WAL mode.

    Raises:
        LedgerError: where another process holds an older ledger open.
    """
    try:
        (mode,) = database.execute(f"PRAGMA journal_mode={JOURNAL_MODE}").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        mode = "busy"
    if mode.upper() != JOURNAL_MODE:
        raise LedgerError(
            explain(
                "ledger journal",
                mode,
                "another process holds the file, in the mode of an earlier version",
                "stop the silo's gatekeeper and whatever else reads the ledger, then start this one",
            )
        )
    database.execute(f"PRAGMA synchronous={SYNCHRONOUS}")


def connect_to_read(path: Path) -> sqlite3.Connection:
    """The existing file, for reading alone, also beside a gatekeeper and on media that cannot be written.

    Changes no byte, but for what a crash left half written: where the folder can be written, that is rolled back first,
    as whoever opens the file next would do.

    Raises:
        LedgerError: where a journal lies beside the file that would have to be merged on read-only media.
    """
    folder_is_writable = all(os.access(place, os.W_OK, effective_ids=True) for place in (path, path.parent))
    options = "mode=ro"
    if _is_in_wal(path):
        log = path.with_name(f"{path.name}-wal")
        if not log.exists() or log.stat().st_size == 0:
            options += "&immutable=1"  # nobody has it open; otherwise SQLite would make two files beside it
        elif not folder_is_writable:
            raise _unmerged(log)
    database = _connected(path, options)
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if error.sqlite_errorcode != _READONLY_ROLLBACK:
            raise
        if not folder_is_writable:
            raise _unmerged(path.with_name(f"{path.name}-journal")) from error
        with contextlib.closing(connect(path)) as recovering:
            recovering.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connect_to_read(path)
    return database


def _is_in_wal(path: Path) -> bool:
    """Whether an earlier version left the file in WAL mode.

    A ledger in use has its journal beside it and is not touched here: to open and close a file beside SQLite would drop
    the locks that this process holds on it.
    """
    if path.with_name(f"{path.name}-journal").exists():
        return False
    with open(path, "rb") as file:
        return file.read(20)[18:] == _WAL_FORMAT


def _unmerged(journal: Path) -> LedgerError:
    return LedgerError(
        explain(
            "ledger journal",
            str(journal),
            "holds what a crash left half written, and cannot be merged on read-only media",
            "copy the ledger's file and this one to a folder that can be written, and look there",
        )
    )


def check_file(database: sqlite3.Connection, *, whole: bool) -> int:
    """Checks that tables and indexes agree, and that the schema is a ledger's; returns the format version, 1 or 2.

    A copy that was made while the ledger was written may lack what its own parts point to: a replayed query would be
    charged twice, or its charge be lost.

    Args:
        database: the open file.
        whole: also check every page of stored replies, which takes longer.

    Raises:
        LedgerError: naming the first fault.
    """
    database.execute("BEGIN")  # all of it at one moment, whoever writes meanwhile
    try:
        return _check_file(database, whole)
    finally:
        if database.in_transaction:
            database.execute("COMMIT")


def _check_file(database: sqlite3.Connection, whole: bool) -> int:
    (number,) = database.execute("PRAGMA user_version").fetchone()
    if not 0 <= number <= FORMAT_VERSION:
        raise LedgerError(
            explain(
                "ledger user_version", number, f"is above {FORMAT_VERSION}: made by a newer version", "upgrade fedcpsc"
            )
        )
    version = max(1, int(number))
    found = {row[0] for row in database.execute("SELECT sql FROM sqlite_master")}
    if not found:
        raise _unbegun()
    if found != set(schema(version)):
        raise LedgerError(
            explain("ledger schema", f"version {version}", "is not a ledger's", "restore it: fedcpsc ledger restore")
        )
    (sound,) = database.execute(f"PRAGMA integrity_check({'1' if whole else 'events'})").fetchone()
    if sound != "ok":
        raise LedgerError(explain("ledger file", sound, "its parts do not fit together", _TORN))
    (answered,) = database.execute("SELECT count(*) FROM events WHERE kind = 'answered'").fetchone()
    (kept,) = database.execute(
        "SELECT count(*) FROM events e JOIN replies r USING (seq) WHERE e.kind = 'answered'"
    ).fetchone()
    (stored,) = database.execute("SELECT count(*) FROM replies").fetchone()
    if not answered == kept == stored:
        raise LedgerError(explain("ledger replies", stored, f"there are {answered} answered queries", _TORN))
    return version


def to_format_2(database: sqlite3.Connection) -> None:
    """Gives a file of version 1 what version 2 needs; its rows stay as they are. Within a transaction."""
    database.execute("DROP INDEX asked_once")
    database.execute(next(statement for statement in schema(2) if "INDEX asked_once" in statement))
    database.execute("PRAGMA user_version = 2")


def _unbegun() -> LedgerError:
    return LedgerError(explain("ledger file", "no tables", "was never begun", "restore it: fedcpsc ledger restore"))


def _connected(path: Path, options: str) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?{options}"
    database = sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA trusted_schema=OFF")
    database.execute("PRAGMA cell_size_check=ON")
    return database


_REMEDIES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free space; nothing is answered until a charge can be written"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable for the gatekeeper's user"),
    sqlite3.SQLITE_NOTADB: ("is not a ledger", "restore it: fedcpsc ledger restore"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore it: fedcpsc ledger restore"),
    sqlite3.SQLITE_BUSY: (f"was locked for {WAIT_S:.0f} s", "find the process that holds it"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check the path and its rights"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk"),
}


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors, and Python's over what a damaged file holds, into `LedgerError` with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes carry the primary one in their low byte
        constraint, remedy = _REMEDIES.get(code, (f"cannot be used ({error})", "check the file: fedcpsc ledger verify"))
        raise LedgerError(explain("ledger", str(path), constraint, remedy)) from error
    except OSError as error:
        why = f"cannot be read or written ({error.strerror})"
        raise LedgerError(explain("ledger", str(path), why, "check the path and its rights")) from error
    except (ValueError, OverflowError, MemoryError) as error:  # text that is none, sizes beyond all bounds
        why = f"is damaged ({type(error).__name__})"
        raise LedgerError(explain("ledger", str(path), why, "restore it: fedcpsc ledger restore")) from error
