# SPDX-License-Identifier: Apache-2.0
"""The silo's durable record of every charge and every stored reply, one file for each population and unit.

One table of events is the ledger: append-only (triggers abort UPDATE and DELETE), each row carrying the running totals
and chained to the one before by SHA-256. Stored replies are in a second append-only table, and the chain
includes their hashes.

    created -> charged -> answered        a query: charged before inference, its reply stored before it is sent
            -> refused                    nothing was left for the whole batch; the same query stays refused
            -> raised                     the owner raised the budget
            -> released                   something else left the silo, e.g. a teacher trained by DP-SGD
            -> carried                    charges brought over from another ledger of the same population
            -> population                 the owner named the population anew, or how its persons are told apart
            -> restored                   the owner put a backup back, or began a new high-water mark
            -> clock                      the machine's clock went back or jumped ahead

Rules: a charge is committed before inference and never refunded; the same query id with the same payload gets the
stored bytes back without charge; a query charged but not answered (a crash between, or a teacher that failed) is
computed again without charge, by whichever teacher the silo then has, where it costs the same; of two racers for one
query the second discards its reply. Several processes and threads may use one file at once: every write is one `BEGIN
IMMEDIATE` transaction. Its decisions depend only on public quantities, and never on time: a clock that went wrong is
recorded and shown to the owner.

It imports neither torch nor flwr, so that an owner can read the ledger without delay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from fedcpsc.errors import LedgerError, explain
from fedcpsc.ledger.budget import MU2_UNIT, Allowance, Budget, Charge, Denied, Reserved, Status, Stored
from fedcpsc.ledger.chain import SCHEMA, Row, sha256_hex
from fedcpsc.ledger.clock import iso_time
from fedcpsc.ledger.file import connect, durable, translated
from fedcpsc.ledger.mark import HighWaterMark, default_mark, missing_mark
from fedcpsc.ledger.owner import LARGEST, LedgerOwner, check_name, recorded
from fedcpsc.ledger.reading import opened

__all__ = [
    "LEDGER_FILE",
    "MU2_UNIT",
    "Allowance",
    "Budget",
    "Charge",
    "Denied",
    "Ledger",
    "Reserved",
    "Status",
    "Stored",
]

LEDGER_FILE = "ledger.sqlite"
_REFUSALS_KEPT = 10_000  # beyond, refusals are not recorded: strangers must not be able to fill the disk


class Ledger(LedgerOwner):
    """A ledger open for writing. Get it from `Ledger.create` or `Ledger.open`; several threads may share it."""

    @classmethod
    def create(
        cls,
        path: str | Path,
        population: str,
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
            path: SQLite file, which must not exist.
            population: name of the population whose loss is counted, printable, 1 to 120 characters.
            answers: images answered over all time, > 0.
            mu2: sum of mu^2 over all time, in units of 1e-12; 0 where no mechanism adds noise.
            unit: what one guarantee protects, `record` or `person`.
            relation: neighbouring relation of every epsilon computed from this ledger.
            delta: delta of every epsilon computed from this ledger, in (0, 1).
            high_water_mark: file that detects an old copy put back; None for the one beside the ledger.

        Raises:
            LedgerError: where the file or its mark exists or cannot be made, or a value is out of range.
        """
        path = Path(path)
        mark = HighWaterMark(Path(high_water_mark or default_mark(path)))
        if not 0 < answers < LARGEST or not 0 <= mu2 < LARGEST or not 0 < delta < 1:
            raise LedgerError(
                explain("answers, mu2, delta", (answers, mu2, delta), "must be > 0, >= 0, in (0, 1)", "fix the budget")
            )
        check_name(population)
        if mark.path.exists() and not path.exists():
            remedy = "restore that ledger: fedcpsc ledger restore; a population never gets a second one"
            raise LedgerError(explain("high_water_mark", str(mark.path), "belongs to an earlier ledger", remedy))
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
            durable(database)
            database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = 2; COMMIT;")
        ledger = cls(path, database, mark)
        settled = {"dataset_id": population, "unit": unit, "relation": relation, "delta": float(delta)}
        with ledger._writing(new_mark=True):
            ledger._append("created", **settled, answers_cap=answers, mu2_cap=mu2)
        return ledger

    @classmethod
    def open(
        cls,
        path: str | Path,
        population: str,
        *,
        unit: str | None = None,
        high_water_mark: str | Path | None = None,
        new_mark: bool = False,
    ) -> Ledger:
        """An existing ledger, for writing; its hash chain, its indexes and its mark are checked.

        A ledger of an earlier version leaves its WAL mode and becomes one of version 2; its rows stay as they are.

        Args:
            path: SQLite file.
            population: name of the silo's population; the ledger's must be the same.
            unit: what one guarantee must protect; None takes the ledger's own.
            high_water_mark: file of the mark, as for `create`.
            new_mark: whether the mark may begin at this ledger's newest row, where there is none; a row records it.

        Raises:
            LedgerError: where the ledger is missing, of another population or unit, damaged, tampered with, made by a
                newer version, older than its high-water mark or without one, or not writable.
        """
        path = Path(path)
        mark = HighWaterMark(Path(high_water_mark or default_mark(path)))
        if new_mark and mark.read() is None:
            return cls.accept(path, population, {"how": "mark"}, unit=unit, high_water_mark=mark.path)
        ledger, version = cls._opened(path, population, unit, mark)
        try:
            if mark.read() is None:
                raise missing_mark(mark.path, version)
            ledger._prepare(version)
            with ledger._writing():  # checks the mark, and that the file can be written
                pass
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def accept(
        cls,
        path: str | Path,
        population: str,
        facts: Mapping[str, object],
        *,
        unit: str | None = None,
        high_water_mark: str | Path | None = None,
        spend_rest: bool = False,
        trained: bool = False,
    ) -> Ledger:
        """An existing ledger that its owner declares to be the newest: a row records it, and its mark begins there.

        Args:
            path: SQLite file.
            population: name of the silo's population; the ledger's must be the same.
            facts: what the row of kind `restored` says, beside the row, hash and totals that were accepted.
            unit: what one guarantee must protect; None takes the ledger's own.
            high_water_mark: file of the mark, as for `create`; replaced where it exists.
            spend_rest: whether to charge all that is left of the budget, too, for what may have been spent since.
            trained: whether a DP-SGD training may be among what was spent since; the rest is then charged as exposed.

        Raises:
            LedgerError: as for `open`, but for the mark.
        """
        path = Path(path)
        mark = HighWaterMark(Path(high_water_mark or default_mark(path)))
        ledger, version = cls._opened(path, population, unit, mark)
        try:
            ledger._prepare(version)
            with ledger._writing(new_mark=True) as head:
                spent = {name: head[name] for name in ("answers_spent", "mu2_spent")}
                accepted = {"row": head["seq"], "head": head["hash"], "time": iso_time(head["time_ns"]), **spent}
                note = {**facts, **accepted}
                ledger._append("restored", note=json.dumps(note))
                if spend_rest:
                    ledger._carry_rest(head, trained)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def _opened(cls, path: Path, population: str, unit: str | None, mark: HighWaterMark) -> tuple[Ledger, int]:
        """The ledger and its format version; nothing is changed yet."""
        database, version = opened(path, connect, population, unit)
        return cls(path, database, mark), version

    def reserve(
        self,
        query_id: str,
        payload: str,
        charge: Charge,
        *,
        principal: str = "",
        run: str = "",
        limit: Budget | None = None,
        allowance: Allowance | None = None,
    ) -> Reserved | Stored | Denied:
        """Finds the reply to a query, or charges it; committed when this returns.

        Args:
            query_id: names the query for its principal.
            payload: SHA-256 of the question.
            charge: what answering costs.
            principal: who asks.
            run: name of the run, for the record only.
            limit: a policy's caps; the lower of these and the ledger's own hold.
            allowance: how many charges of this sort a policy allows over all time; None: as many as the caps hold.

        Raises:
            LedgerError: where the ledger cannot be written; nothing was charged.
        """
        with self._writing() as head:
            cap = _cap(head, limit)
            asked = self._asked(principal, query_id)
            if asked:
                return self._again(asked, payload, charge, cap)
            spent = Budget(head["answers_spent"] + charge.answers, head["mu2_spent"] + charge.mu2)
            facts = {"principal": principal, "query_id": query_id, "run": run, "payload": payload, **recorded(charge)}
            used_up = allowance is not None and self._charges_of(allowance.mechanism) >= allowance.times
            if used_up or spent.answers > cap.answers or spent.mu2 > cap.mu2:
                if head["refused"] < _REFUSALS_KEPT:
                    self._append("refused", **facts)
                return Denied(conflict=False)
            self._append("charged", **facts)
            return Reserved(Budget(cap.answers - spent.answers, cap.mu2 - spent.mu2))

    def recall(
        self, query_id: str, payload: str, charge: Charge, *, principal: str = "", limit: Budget | None = None
    ) -> Reserved | Stored | Denied | None:
        """What `reserve` would return of a query that was asked before; None where it never was. Charges nothing.

        Args:
            query_id, payload, charge, principal, limit: arguments as for `reserve`.

        Raises:
            LedgerError: where the ledger cannot be written.
        """
        with self._writing() as head:
            asked = self._asked(principal, query_id)
            return self._again(asked, payload, charge, _cap(head, limit)) if asked else None

    def store(self, query_id: str, reply: bytes, *, principal: str = "", model: str = "") -> bytes:
        """Stores the reply to a charged query and returns what must be sent: the reply stored first.

        Args:
            query_id: name of the query for its principal.
            reply: bytes that are to be sent.
            principal: name of who asks.
            model: version of the teacher that answered; recorded where the query was charged for another.

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
            own = {"model": model} if model != asked["model"] else {}
            facts = {"principal": principal, "query_id": query_id, "reply": sha256_hex(reply)}
            seq = self._append("answered", **facts, **own)
            self._db.execute("INSERT INTO replies VALUES (?, ?)", (seq, reply))
            return reply

    def release(self, name: str, charge: Charge, note: str = "", limit: Budget | None = None) -> bool:
        """Records something else that leaves the silo, once; False where `name` was recorded before.

        Args:
            name: names what leaves, for ever.
            charge: what it costs.
            note: facts, as JSON.
            limit: a policy's caps; the lower of these and the ledger's own hold.

        Raises:
            LedgerError: where the budget does not hold it, or the ledger cannot be written.
        """
        with self._writing() as head:
            if self._asked("", name):
                return False
            cap = _cap(head, limit)
            if head["mu2_spent"] + charge.mu2 > cap.mu2 or head["answers_spent"] + charge.answers > cap.answers:
                raise LedgerError(explain("release", name, "does not fit into the budget", "raise the budget"))
            self._append("released", query_id=name, note=note, **recorded(charge))
            return True

    # Inside a transaction ---------------------------------------------------------------------------------------------

    def _again(self, asked: Row, payload: str, charge: Charge, cap: Budget) -> Reserved | Stored | Denied:
        if asked["payload"] != payload or asked["kind"] in ("released", "carried"):
            return Denied(conflict=True)
        if asked["kind"] == "refused":
            return Denied(conflict=False)
        stored = self._reply(asked["principal"], asked["query_id"])
        if stored is not None:
            return Stored(stored)
        # nothing of the first teacher's answer ever left, so another may give it: where it costs what was charged
        if any(asked[name] != value for name, value in recorded(charge).items() if name != "model"):
            return Denied(conflict=True)
        left = Budget(max(0, cap.answers - asked["answers_spent"]), max(0, cap.mu2 - asked["mu2_spent"]))
        return Reserved(left)


def _cap(head: Row, limit: Budget | None) -> Budget:
    """The ledger's caps, or a policy's where lower."""
    cap = Budget(head["answers_cap"], head["mu2_cap"])
    return Budget(min(cap.answers, limit.answers), min(cap.mu2, limit.mu2)) if limit else cap
