"""The silo's durable record of every charge and every stored reply, one file for each data set and unit.

One table of events is the ledger: append-only (triggers abort UPDATE and DELETE), each row carrying the running totals
and chained to the one before by SHA-256. Stored replies lie in a second append-only table, their hashes in the chain.

    created -> charged -> answered        a query: charged before inference, its reply stored before it is sent
            -> refused                    nothing was left for the whole batch; the same query stays refused
            -> raised                     the owner raised the budget
            -> released                   something else left the silo, e.g. a teacher trained by DP-SGD

Rules: a charge is committed before inference and never refunded; the same query id with the same payload gets the
stored bytes back without charge; a query charged but not answered (a crash between) is computed again without charge;
of two racers for one query the second discards its reply. Several processes and threads may use one file at once:
every write is one `BEGIN IMMEDIATE` transaction. What it decides depends on public quantities alone.

Torch-free and flwr-free: an owner reads the ledger at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedcpsc.errors import LedgerError, explain
from fedcpsc.gatekeeper.budget import MU2_UNIT, Budget, Charge, Denied, Reserved, Status, Stored
from fedcpsc.gatekeeper.ledger_chain import (
    COLUMNS,
    SCHEMA,
    HighWaterMark,
    Row,
    chain_hash,
    sha256_hex,
    verify_chain,
    verify_replies,
)
from fedcpsc.gatekeeper.ledger_file import connect, translated

__all__ = ["LEDGER_FILE", "MU2_UNIT", "Budget", "Charge", "Denied", "Ledger", "Reserved", "Status", "Stored"]

LEDGER_FILE = "ledger.sqlite"
_CLOCK_TOLERANCE_NS = 60 * 10**9
_REFUSALS_KEPT = 10_000  # beyond, refusals are not recorded: strangers must not be able to fill the disk
_LARGEST = 2**61
_PAGE = 1000


class Ledger:
    """An open ledger. Get one from `Ledger.create` or `Ledger.open`; several threads may share it."""

    def __init__(self, path: Path, database: sqlite3.Connection, mark: HighWaterMark | None) -> None:
        self.path = path
        self._db = database
        self._mark = mark
        self._lock = threading.RLock()

    @classmethod
    def create(
        cls,
        path: str | Path,
        dataset_id: str,
        answers: int,
        *,
        mu2: int = 0,
        unit: str = "record",
        relation: str = "add_remove",
        delta: float = 1e-5,
        high_water_mark: str | Path | None = None,
    ) -> Ledger:
        """A new, empty ledger.

        Args:
            path: of the SQLite file, which must not exist.
            dataset_id: of the private data whose loss is counted.
            answers: images answered over all time, > 0.
            mu2: sum of mu^2 over all time, in units of 1e-12; 0 where no mechanism adds noise.
            unit: what one guarantee protects.
            relation: the neighbouring relation of every epsilon computed from this ledger.
            delta: of every epsilon computed from this ledger, in (0, 1).
            high_water_mark: file that detects a restored old copy; best on another volume.

        Raises:
            LedgerError: where the file exists or cannot be made, or a value is out of range.
        """
        path, mark = Path(path), HighWaterMark(Path(high_water_mark)) if high_water_mark else None
        if not 0 < answers < _LARGEST or not 0 <= mu2 < _LARGEST or not 0 < delta < 1:
            raise LedgerError(
                explain("answers, mu2, delta", (answers, mu2, delta), "must be > 0, >= 0, in (0, 1)", "mend the budget")
            )
        if mark and mark.read():
            raise LedgerError(
                explain("high_water_mark", str(mark.path), "belongs to an earlier ledger", "restore that ledger")
            )
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError as error:
            raise LedgerError(
                explain("ledger", str(path), "exists already", "open it and raise its budget; never start it afresh")
            ) from error
        except OSError as error:
            raise LedgerError(
                explain("ledger", str(path), f"cannot be made ({error.strerror})", "make its folder writable")
            ) from error
        with translated(path):
            database = connect(path)
            database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        ledger = cls(path, database, mark)
        settled = {"dataset_id": dataset_id, "unit": unit, "relation": relation, "delta": float(delta)}
        with ledger._writing():
            ledger._append("created", **settled, answers_cap=answers, mu2_cap=mu2)
        return ledger

    @classmethod
    def open(
        cls,
        path: str | Path,
        dataset_id: str,
        *,
        unit: str | None = None,
        high_water_mark: str | Path | None = None,
        new_mark: bool = False,
    ) -> Ledger:
        """An existing ledger; its hash chain is checked row by row.

        Args:
            path: of the SQLite file.
            dataset_id: of the silo's private data; the ledger's must be the same.
            unit: likewise; None takes any.
            high_water_mark: as for `create`.
            new_mark: let the mark begin at this ledger's newest row, where there was none.

        Raises:
            LedgerError: where the ledger is missing, of another data set or unit, tampered with, older than its
                high-water mark, or not writable.
        """
        path, mark = Path(path), HighWaterMark(Path(high_water_mark)) if high_water_mark else None
        if not path.is_file():
            raise LedgerError(
                explain(
                    "ledger", str(path), "is missing", "restore it; only for new data make one: fedcpsc ledger init"
                )
            )
        if mark and mark.read() is None and not new_mark:
            raise LedgerError(
                explain(
                    "high_water_mark", str(mark.path), "is missing", "restore it, or begin one: fedcpsc ledger mark"
                )
            )
        with translated(path):
            database = connect(path)
            names = ", ".join(COLUMNS)
            head = verify_chain(database.execute(f"SELECT {names} FROM events ORDER BY seq"))  # noqa: S608 - constants
        if head is None:
            raise LedgerError(explain("ledger", str(path), "was never begun", "remove it and run fedcpsc ledger init"))
        for name, wanted in (("dataset_id", dataset_id), ("unit", unit)):
            if wanted is not None and head[name] != wanted:
                raise LedgerError(
                    explain(
                        f"ledger {name}", head[name], f"must be {wanted!r}, the silo's own", "use that data's ledger"
                    )
                )
        ledger = cls(path, database, mark)
        with ledger._writing():  # checks the mark, and that the file can be written
            pass
        return ledger

    def close(self) -> None:
        """Closes the file; the ledger cannot be used afterwards."""
        with self._lock:
            self._db.close()

    def reserve(
        self,
        query_id: str,
        payload: str,
        charge: Charge,
        *,
        principal: str = "",
        run: str = "",
        limit: Budget | None = None,
    ) -> Reserved | Stored | Denied:
        """Finds the reply to a query, or charges it; committed when this returns.

        Args:
            query_id: names the query for its principal.
            payload: SHA-256 of the question.
            charge: what answering costs.
            principal: who asks.
            run: for the record only.
            limit: a policy's caps; the lower of these and the ledger's own hold.

        Raises:
            LedgerError: where the ledger cannot be written; nothing was charged.
        """
        with self._writing() as head:
            cap = Budget(head["answers_cap"], head["mu2_cap"])
            if limit:
                cap = Budget(min(cap.answers, limit.answers), min(cap.mu2, limit.mu2))
            asked = self._asked(principal, query_id)
            if asked:
                return self._again(asked, payload, charge, cap)
            spent = Budget(head["answers_spent"] + charge.answers, head["mu2_spent"] + charge.mu2)
            facts = {"principal": principal, "query_id": query_id, "run": run, "payload": payload, **vars(charge)}
            facts["private"] = int(charge.private)
            if spent.answers > cap.answers or spent.mu2 > cap.mu2:
                if head["refused"] < _REFUSALS_KEPT:
                    self._append("refused", **facts)
                return Denied(conflict=False)
            self._append("charged", **facts)
            return Reserved(Budget(cap.answers - spent.answers, cap.mu2 - spent.mu2))

    def store(self, query_id: str, reply: bytes, *, principal: str = "") -> bytes:
        """Stores the reply to a charged query and returns what must be sent: the reply stored first.

        Raises:
            LedgerError: where the query was not charged, or the ledger cannot be written; then nothing may be sent.
        """
        with self._writing():
            asked = self._asked(principal, query_id)
            if asked is None or asked["kind"] != "charged":
                raise LedgerError(explain("query_id", query_id, "was not charged", "reserve before store"))
            stored = self._reply(principal, query_id)
            if stored is not None:
                return stored
            seq = self._append("answered", principal=principal, query_id=query_id, reply=sha256_hex(reply))
            self._db.execute("INSERT INTO replies VALUES (?, ?)", (seq, reply))
            return reply

    def release(self, name: str, charge: Charge, note: str = "") -> bool:
        """Records something else that leaves the silo, once; False where `name` was recorded before.

        Raises:
            LedgerError: where the budget does not hold it, or the ledger cannot be written.
        """
        with self._writing() as head:
            if self._asked("", name):
                return False
            if (
                head["mu2_spent"] + charge.mu2 > head["mu2_cap"]
                or head["answers_spent"] + charge.answers > head["answers_cap"]
            ):
                raise LedgerError(explain("release", name, "does not fit into the budget", "raise the budget"))
            self._append("released", query_id=name, note=note, **{**vars(charge), "private": int(charge.private)})
            return True

    def raise_budget(self, *, answers: int | None = None, mu2: int | None = None, note: str = "") -> Status:
        """Raises a cap, for the owner alone; the row stays.

        Args:
            answers: the new cap on answers, not below the present one; None keeps it.
            mu2: the new cap on the sum of mu^2, in units of 1e-12; None keeps it.
            note: why.

        Raises:
            LedgerError: where a cap would fall.
        """
        with self._writing() as head:
            new = {
                "answers_cap": head["answers_cap"] if answers is None else answers,
                "mu2_cap": head["mu2_cap"] if mu2 is None else mu2,
            }
            for name, value in new.items():
                if not head[name] <= value < _LARGEST:
                    raise LedgerError(
                        explain(name, value, f"must not be below {head[name]}", "tighten the policy, not the ledger")
                    )
            self._append("raised", note=note, **new)
        return self.status()

    def releases(self) -> list[Row]:
        """What left the silo beside answers, oldest first.

        Raises:
            LedgerError: where the file cannot be read.
        """
        with self._lock, translated(self.path):
            return [dict(row) for row in self._db.execute("SELECT * FROM events WHERE kind = 'released' ORDER BY seq")]

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
            dataset_id=head["dataset_id"],
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
        )

    def verify(self) -> Status:
        """Checks every row, every stored reply, the file itself and the high-water mark.

        Raises:
            LedgerError: naming the first fault.
        """
        with self._writing(), translated(self.path):
            (sound,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise LedgerError(explain("ledger", str(self.path), f"is damaged ({sound})", "restore a true copy"))
            verify_chain(self._rows())
            verify_replies(self._db)
        return self.status()

    def export(self) -> Iterator[Row]:
        """Every row, oldest first, as plain values (replies only by their hash).

        Raises:
            LedgerError: where the file cannot be read.
        """
        after = 0
        while True:
            with self._lock, translated(self.path):
                page = [dict(row) for row in self._rows(after, _PAGE)]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]["seq"]

    # Inside a transaction ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Row]:
        """One durable transaction; yields the newest row (empty before the first). The mark follows the commit."""
        with self._lock, translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                before = self._head() or {}
                self._check_mark(before.get("seq", 0))
                yield before
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if self._mark:
                after = self._head()
                if after:
                    self._mark.advance(after["seq"], after["hash"])

    def _check_mark(self, newest: int) -> None:
        seen = self._mark.read() if self._mark else None
        if seen is None:
            return
        found = self._db.execute("SELECT hash FROM events WHERE seq = ?", (seen[0],)).fetchone()
        if found is None or found["hash"] != seen[1]:
            raise LedgerError(
                explain(
                    "ledger", f"row {newest}", f"is older than its high-water mark, row {seen[0]}", "restore the newest"
                )
            )

    def _head(self) -> Row | None:
        row = self._db.execute("SELECT * FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return dict(row) if row else None

    def _rows(self, after: int = 0, count: int = -1) -> Iterator[sqlite3.Row]:
        yield from self._db.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, count))

    def _asked(self, principal: str, query_id: str) -> Row | None:
        row = self._db.execute(
            "SELECT * FROM events WHERE principal = ? AND query_id = ? AND kind IN ('charged', 'refused', 'released')",
            (principal, query_id),
        ).fetchone()
        return dict(row) if row else None

    def _reply(self, principal: str, query_id: str) -> bytes | None:
        row = self._db.execute(
            "SELECT r.reply AS reply FROM events e JOIN replies r USING (seq)"
            " WHERE e.principal = ? AND e.query_id = ? AND e.kind = 'answered'",
            (principal, query_id),
        ).fetchone()
        return bytes(row["reply"]) if row else None

    def _again(self, asked: Row, payload: str, charge: Charge, cap: Budget) -> Reserved | Stored | Denied:
        if asked["payload"] != payload or asked["kind"] == "released":
            return Denied(conflict=True)
        if asked["kind"] == "refused":
            return Denied(conflict=False)
        stored = self._reply(asked["principal"], asked["query_id"])
        if stored is not None:
            return Stored(stored)
        if (asked["mechanism"], asked["model"]) != (charge.mechanism, charge.model):
            return Denied(conflict=True)  # what was charged is not what would be computed now
        left = Budget(max(0, cap.answers - asked["answers_spent"]), max(0, cap.mu2 - asked["mu2_spent"]))
        return Reserved(left)

    def _append(self, kind: str, **facts: Any) -> int:
        before = self._head() or {}
        now = time.time_ns()
        if now < before.get("time_ns", 0) - _CLOCK_TOLERANCE_NS:
            raise LedgerError(
                explain(
                    "clock", now, f"is before the newest row ({before['time_ns']})", "set the machine's clock right"
                )
            )
        row: Row = {name: before.get(name, 0) for name in COLUMNS}
        row |= dict.fromkeys(_OWN_TEXTS, "") | {
            "sensitivity": 0.0,
            "sigma": 0.0,
            "answers": 0,
            "mu2": 0,
            "private": 0,
        }
        row |= facts
        row |= {"kind": kind, "seq": before.get("seq", 0) + 1, "time_ns": max(now, before.get("time_ns", 0))}
        row["previous"] = before.get("hash", "")
        if kind in ("charged", "released"):
            row["answers_spent"] += row["answers"]
            row["mu2_spent"] += row["mu2"]
            row["unprotected"] += 0 if row["private"] else row["answers"]
        row["queries"] += kind == "charged"
        row["refused"] += kind == "refused"
        row["hash"] = chain_hash(row)
        marks = ", ".join("?" for _ in COLUMNS)
        self._db.execute(f"INSERT INTO events VALUES ({marks})", [row[name] for name in COLUMNS])  # noqa: S608
        return int(row["seq"])


_OWN_TEXTS = ("principal", "query_id", "run", "payload", "model", "mechanism", "reply", "note")
