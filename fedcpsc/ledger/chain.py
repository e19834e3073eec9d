# SPDX-License-Identifier: Apache-2.0
"""What makes the ledger tamper-evident: its schema and the hash chain over its rows.

The chain finds every change, insertion and removal inside the table. It cannot find a ledger that was wholly rewritten
or cut at its end; the high-water mark (`ledger_mark.py`) finds both.

Version 1 of the file knew the kinds created, charged, answered, refused, raised and released, and called the
population a data set; its rows verify unchanged. Version 2 adds population, carried, clock and restored.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from fedcpsc.errors import LedgerError, explain

__all__ = [
    "ASKED",
    "COLUMNS",
    "FORMAT_VERSION",
    "SCHEMA",
    "SPENDING",
    "Row",
    "chain_hash",
    "schema",
    "sha256_hex",
    "verify_chain",
    "verify_reply",
]

FORMAT_VERSION = 2  # PRAGMA user_version; files of version 1 have 0 there
SPENDING = ("charged", "released", "carried")

COLUMNS = (
    "seq",  # 1, 2, 3, ...
    "time_ns",  # falls at a row of kind clock alone
    "kind",  # created | charged | answered | refused | raised | released | population | carried | clock | restored
    "dataset_id",  # the population's name
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


_ASKED = {1: "'charged', 'refused', 'released'", 2: "'charged', 'refused', 'released', 'carried'"}
ASKED = f"kind IN ({_ASKED[FORMAT_VERSION]})"  # the rows that take a name; in a query's WHERE it brings in the index


def schema(version: int) -> tuple[str, ...]:
    """The statements that make a ledger's tables, as SQLite keeps them.

    Args:
        version: format version of the file, 1 or 2.
    """
    keep = "SELECT RAISE(ABORT, 'the ledger is append-only')"
    return (
        f"CREATE TABLE events ({', '.join(_column(name) for name in COLUMNS)}) STRICT",
        f"CREATE UNIQUE INDEX asked_once ON events (principal, query_id) WHERE kind IN ({_ASKED[version]})",
        "CREATE UNIQUE INDEX answered_once ON events (principal, query_id) WHERE kind = 'answered'",
        "CREATE TABLE replies (seq INTEGER PRIMARY KEY REFERENCES events, reply BLOB NOT NULL) STRICT",
        f"CREATE TRIGGER events_keep BEFORE UPDATE ON events BEGIN {keep}; END",
        f"CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN {keep}; END",
        f"CREATE TRIGGER replies_keep BEFORE UPDATE ON replies BEGIN {keep}; END",
        f"CREATE TRIGGER replies_stay BEFORE DELETE ON replies BEGIN {keep}; END",
    )


SCHEMA = "".join(f"{statement};\n" for statement in schema(FORMAT_VERSION))

Row = dict[str, Any]
_SETTLED = ("unit", "relation", "delta")


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
                explain(
                    "ledger row",
                    row["seq"],
                    fault,
                    "the ledger was tampered with or copied while it was written; restore it: fedcpsc ledger restore",
                )
            )
        before = row
    return before


def _fault(row: Row, before: Row | None, asked: dict[tuple[str, str], str]) -> str:
    """Why `row` cannot follow `before`, empty where it can. `asked` is the state of each query so far."""
    try:
        fits = row["hash"] == chain_hash(row)
    except (TypeError, ValueError):  # a value of another type, or not finite: no row of a ledger holds one
        return "holds a value that no ledger has"
    if not fits:
        return "its hash does not fit its content"
    if before is None:
        totals = [row[name] for name in ("answers_spent", "mu2_spent", "unprotected", "queries", "refused")]
        begins = row["kind"] == "created" and row["seq"] == 1 and row["previous"] == "" and not any(totals)
        return "" if begins else "is not how a ledger begins"
    kind, caps = row["kind"], ("answers_cap", "mu2_cap")
    faults = {
        "does not follow the row before it": row["seq"] != before["seq"] + 1 or row["previous"] != before["hash"],
        "contradicts the row before it": (row["time_ns"] < before["time_ns"] and kind != "clock")
        or any(row[name] != before[name] for name in _SETTLED),
        "changes the population without the owner": not _keeps_population(row, before),
        "has a negative charge": row["answers"] < 0 or row["mu2"] < 0,
        "has wrong totals": any(row[name] != total for name, total in _totals(row, before).items()),
        "changes the budget without the owner": kind != "raised" and any(row[name] != before[name] for name in caps),
        "lowers the budget": any(row[name] < before[name] for name in caps),
    }
    return next((fault for fault, found in faults.items() if found), "") or _fault_of_order(row, asked)


def _keeps_population(row: Row, before: Row) -> bool:
    """Whether the population is the one before, or named anew by a row of that kind whose note says so."""
    if row["kind"] != "population":
        return bool(row["dataset_id"] == before["dataset_id"])
    try:
        note = json.loads(row["note"])
        return bool((note["from"], note["to"]) == (before["dataset_id"], row["dataset_id"]))
    except (ValueError, TypeError, KeyError):
        return False


def _totals(row: Row, before: Row) -> dict[str, int]:
    spends = row["kind"] in SPENDING
    return {
        "answers_spent": before["answers_spent"] + (row["answers"] if spends else 0),
        "mu2_spent": before["mu2_spent"] + (row["mu2"] if spends else 0),
        "unprotected": before["unprotected"] + (row["answers"] if spends and not row["private"] else 0),
        "queries": before["queries"] + (row["kind"] == "charged"),
        "refused": before["refused"] + (row["kind"] == "refused"),
    }


def _fault_of_order(row: Row, asked: dict[tuple[str, str], str]) -> str:
    kind, key = row["kind"], (row["principal"], row["query_id"])
    if kind in ("raised", "population", "clock", "restored"):
        return ""
    if kind == "answered":
        fault = "" if asked.get(key) == "charged" else "answers a query that was not charged, or a second time"
    elif kind in ("charged", "refused", "released", "carried"):
        fault = "is a second charge for one query" if key in asked else ""
    else:
        fault = f"is of unknown kind {kind!r}"
    asked[key] = kind
    return fault


def verify_reply(seq: int, expected: str, reply: object) -> None:
    """Checks a stored reply against its hash in the chain.

    Args:
        seq: number of the row of kind answered.
        expected: SHA-256 in that row, as hex digits.
        reply: bytes stored under that number, None where there are none.

    Raises:
        LedgerError: where the reply is missing or changed.
    """
    if not isinstance(reply, bytes) or sha256_hex(reply) != expected:
        raise LedgerError(
            explain("ledger row", seq, "its stored reply is missing or changed", "restore it: fedcpsc ledger restore")
        )
