"""The SQLite file under the ledger: how it is opened, and its errors in the owner's words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fedcpsc.errors import LedgerError, explain

__all__ = ["connect", "translated"]

WAIT_S = 30.0


def connect(path: Path) -> sqlite3.Connection:
    """The file in WAL mode, every commit on the disk before it returns, transactions begun by hand."""
    database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


_REMEDIES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free space; nothing is answered until a charge can be written"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable for the gatekeeper's user"),
    sqlite3.SQLITE_NOTADB: ("is not a ledger", "restore it from a true copy"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore it from a true copy"),
    sqlite3.SQLITE_BUSY: (f"was locked for {WAIT_S:.0f} s", "find the process that holds it"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check the path and its rights"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk"),
}


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into `LedgerError`, with what the owner can do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes carry the primary one in their low byte
        constraint, remedy = _REMEDIES.get(code, (f"cannot be used ({error})", "check the file: fedcpsc ledger verify"))
        raise LedgerError(explain("ledger", str(path), constraint, remedy)) from error
