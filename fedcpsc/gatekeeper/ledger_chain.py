"""What makes the ledger tamper-evident: its schema, the hash chain over its rows, and the high-water mark.

The chain finds every change, insertion and removal inside the table. It cannot find a ledger that was wholly rewritten
or cut at its end; the high-water mark, a small file that remembers the newest row, finds both, and with them a ledger
restored from an old copy. Whoever can write both files can do anything: keep the mark on another volume.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcpsc.errors import LedgerError, explain

__all__ = ["COLUMNS", "SCHEMA", "HighWaterMark", "Row", "chain_hash", "sha256_hex", "verify_chain", "verify_replies"]

COLUMNS = (
    "seq",  # 1, 2, 3, ...
    "time_ns",  # never falls
    "kind",  # created | charged | answered | refused | raised | released
    "dataset_id",
    "unit",
    "relation",
    "delta",
    "principal",
    "query_id",  # or the name of a release
    "run",
    "payload",  # SHA-256 of the question
    "model",
    "mechanism",
    "sensitivity",
    "sigma",
    "answers",  # of this row
    "mu2",  # of this row, in 1e-12
    "private",  # 1 where a differential-privacy guarantee covers this row's release
    "reply",  # SHA-256 of the stored reply
    "note",  # the owner's words, or facts of a release
    "answers_cap",  # from here on running totals, after this row
    "mu2_cap",
    "answers_spent",
    "mu2_spent",
    "unprotected",
    "queries",
    "refused",
    "previous",  # hash of the row before, empty for the first
    "hash",
)
_TEXTS = frozenset(["kind", "dataset_id", "unit", "relation", "principal", "query_id", "run", "payload"])
_TEXTS |= frozenset(["model", "mechanism", "reply", "note", "previous", "hash"])
_REALS = ("delta", "sensitivity", "sigma")


def _column(name: str) -> str:
    kind = "TEXT" if name in _TEXTS else "REAL" if name in _REALS else "INTEGER"
    return f"{name} {kind} {'PRIMARY KEY' if name == 'seq' else 'NOT NULL'}"


SCHEMA = f"""
CREATE TABLE events ({", ".join(_column(name) for name in COLUMNS)}) STRICT;
CREATE UNIQUE INDEX asked_once ON events (principal, query_id) WHERE kind IN ('charged', 'refused', 'released');
CREATE UNIQUE INDEX answered_once ON events (principal, query_id) WHERE kind = 'answered';
CREATE TABLE replies (seq INTEGER PRIMARY KEY REFERENCES events, reply BLOB NOT NULL) STRICT;
CREATE TRIGGER events_keep BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER replies_keep BEFORE UPDATE ON replies BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER replies_stay BEFORE DELETE ON replies BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""

Row = dict[str, Any]
_SETTLED = ("dataset_id", "unit", "relation", "delta")


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def chain_hash(row: Row) -> str:
    """SHA-256 over every column of a row but its own hash; `previous` is among them."""
    values = [row[name] for name in COLUMNS if name != "hash"]
    return sha256_hex(json.dumps(values, ensure_ascii=True, allow_nan=False).encode())


def verify_chain(rows: Iterable[sqlite3.Row]) -> Row | None:
    """Checks every row against the one before; returns the newest, None where there is none.

    Raises:
        LedgerError: naming the first row that does not follow from those before it.
    """
    before: Row | None = None
    asked: dict[tuple[str, str], str] = {}
    for found in rows:
        row: Row = dict(found)
        fault = _fault(row, before, asked)
        if fault:
            raise LedgerError(
                explain("ledger row", row["seq"], fault, "the ledger was tampered with; restore it from a true copy")
            )
        before = row
    return before


def _fault(row: Row, before: Row | None, asked: dict[tuple[str, str], str]) -> str:
    """Why `row` cannot follow `before`, empty where it can. `asked` is the state of each query so far."""
    if row["hash"] != chain_hash(row):
        return "its hash does not fit its content"
    if before is None:
        totals = [row[name] for name in ("answers_spent", "mu2_spent", "unprotected", "queries", "refused")]
        begins = row["kind"] == "created" and row["seq"] == 1 and row["previous"] == "" and not any(totals)
        return "" if begins else "is not how a ledger begins"
    kind, caps = row["kind"], ("answers_cap", "mu2_cap")
    faults = {
        "does not follow the row before it": row["seq"] != before["seq"] + 1 or row["previous"] != before["hash"],
        "contradicts the row before it": row["time_ns"] < before["time_ns"]
        or any(row[name] != before[name] for name in _SETTLED),
        "has a negative charge": row["answers"] < 0 or row["mu2"] < 0,
        "has wrong totals": any(row[name] != total for name, total in _totals(row, before).items()),
        "changes the budget without the owner": kind != "raised" and any(row[name] != before[name] for name in caps),
        "lowers the budget": any(row[name] < before[name] for name in caps),
    }
    return next((fault for fault, found in faults.items() if found), "") or _fault_of_order(row, asked)


def _totals(row: Row, before: Row) -> dict[str, int]:
    spends = row["kind"] in ("charged", "released")
    return {
        "answers_spent": before["answers_spent"] + (row["answers"] if spends else 0),
        "mu2_spent": before["mu2_spent"] + (row["mu2"] if spends else 0),
        "unprotected": before["unprotected"] + (row["answers"] if spends and not row["private"] else 0),
        "queries": before["queries"] + (row["kind"] == "charged"),
        "refused": before["refused"] + (row["kind"] == "refused"),
    }


def _fault_of_order(row: Row, asked: dict[tuple[str, str], str]) -> str:
    kind, key = row["kind"], (row["principal"], row["query_id"])
    if kind == "raised":
        return ""
    if kind == "answered":
        fault = "" if asked.get(key) == "charged" else "answers a query that was not charged, or a second time"
    elif kind in ("charged", "refused", "released"):
        fault = "is a second charge for one query" if key in asked else ""
    else:
        fault = f"is of unknown kind {kind!r}"
    asked[key] = kind
    return fault


def verify_replies(database: sqlite3.Connection) -> None:
    """Checks that exactly the answered queries have a stored reply, and that each is the one in the chain.

    Raises:
        LedgerError: naming the first row whose reply is missing, changed, or nobody's.
    """
    joined = database.execute(
        "SELECT e.seq AS seq, e.reply AS hash, r.reply AS reply FROM events e LEFT JOIN replies r USING (seq)"
        " WHERE e.kind = 'answered' ORDER BY e.seq"
    )
    answered = 0
    for seq, expected, reply in joined:
        answered += 1
        if reply is None or sha256_hex(reply) != expected:
            raise LedgerError(
                explain("ledger row", seq, "its stored reply is missing or changed", "restore it from a true copy")
            )
    (stored,) = database.execute("SELECT count(*) FROM replies").fetchone()
    if stored != answered:
        raise LedgerError(
            explain("replies", stored, f"there are {answered} answered queries", "restore it from a true copy")
        )


@dataclass(frozen=True)
class HighWaterMark:
    """A file that remembers the newest row (`seq hash`); it only ever moves forward.

    It is written after each commit and before a reply leaves: every charge whose reply left is covered.
    """

    path: Path

    def read(self) -> tuple[int, str] | None:
        """(seq, hash), or None where there is no file.

        Raises:
            LedgerError: where the file is not a mark.
        """
        try:
            seq, digest = self.path.read_text(encoding="ascii").split()
            return int(seq), digest
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LedgerError(
                explain("high_water_mark", str(self.path), f"cannot be read ({error})", "restore the file")
            ) from error

    def advance(self, seq: int, digest: str) -> None:
        """Moves the mark to (seq, digest) unless it is there or further.

        Raises:
            LedgerError: where the file cannot be written.
        """
        try:
            with open(self.path.with_name(self.path.name + ".lock"), "w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                now = self.read()
                if now is not None and now[0] >= seq:
                    return
                partial = self.path.with_name(self.path.name + ".partial")
                with open(partial, "w", encoding="ascii") as file:
                    file.write(f"{seq} {digest}\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, self.path)
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            raise LedgerError(
                explain("high_water_mark", str(self.path), f"cannot be written ({error.strerror})", "make it writable")
            ) from error
