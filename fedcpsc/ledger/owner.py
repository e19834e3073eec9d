# SPDX-License-Identifier: Apache-2.0
"""What a ledger's owner alone does to it: raise the budget, name the population, bring other charges over."""

from __future__ import annotations

import json

from fedcpsc.errors import LedgerError, explain
from fedcpsc.ledger.budget import Charge, Status
from fedcpsc.ledger.chain import Row
from fedcpsc.ledger.writing import LedgerWriter

__all__ = ["LARGEST", "LedgerOwner", "check_name", "recorded"]

LARGEST = 2**61  # below it, a sum of two fits into SQLite's integers
_LONGEST_NAME = 120


class LedgerOwner(LedgerWriter):
    """A ledger with its owner's acts; each is a row that stays."""

    def raise_budget(self, *, answers: int | None = None, mu2: int | None = None, note: str = "") -> Status:
        """Raises a cap, for the owner alone; the row stays.

        Args:
            answers: new cap on answers, not below the present one; None keeps it.
            mu2: new cap on the sum of mu^2, in units of 1e-12; None keeps it.
            note: why, for the record.

        Raises:
            LedgerError: where a cap would fall.
        """
        with self._writing() as head:
            new = {
                "answers_cap": head["answers_cap"] if answers is None else answers,
                "mu2_cap": head["mu2_cap"] if mu2 is None else mu2,
            }
            for name, value in new.items():
                if not head[name] <= value < LARGEST:
                    raise LedgerError(
                        explain(name, value, f"must not be below {head[name]}", "tighten the policy, not the ledger")
                    )
            self._append("raised", note=note, **new)
        return self.status()

    def carry(self, name: str, charge: Charge, note: str = "") -> bool:
        """Records charges of another ledger of the same population, once; False where `name` was carried before.

        What was spent was spent: it is recorded also where the budget does not hold it, and nothing is left then.

        Args:
            name: names what is carried over, for ever.
            charge: what was spent there.
            note: facts as JSON: source, its newest row, and for a DP-SGD teacher epsilon, delta and history.

        Raises:
            LedgerError: where the ledger cannot be written.
        """
        with self._writing():
            if self._asked("", name):
                return False
            self._append("carried", query_id=name, note=note, **recorded(charge))
            return True

    def name_population(self, name: str, reason: str) -> Status:
        """Names the population anew, for the owner alone: from this row on the ledger opens under that name.

        Args:
            name: printable, 1 to 120 characters.
            reason: why, for the record.

        Raises:
            LedgerError: where the name is none, or the ledger cannot be written.
        """
        check_name(name)
        with self._writing() as head:
            note = {"from": head["dataset_id"], "to": name, "reason": reason}
            self._append("population", dataset_id=name, note=json.dumps(note))
        return self.status()

    def persons(self) -> str:
        """How the population's persons are told apart, as it was recorded; empty where nothing was.

        Raises:
            LedgerError: where the file cannot be read.
        """
        notes = [json.loads(row["note"]) for row in self._of_kind("population")]
        return next((str(note["persons"]) for note in reversed(notes) if "persons" in note), "")

    def check_persons(self, persons: str) -> None:
        """Does nothing where persons are told apart as recorded, or nothing is recorded yet.

        Told apart in another way, the same people are other persons: each promise so far was about one of the old ones,
        and none of the new ones would be held to it.

        Args:
            persons: how persons are told apart, e.g. "column patient_id"; empty where every record stands for itself.

        Raises:
            LedgerError: where another way is recorded.
        """
        before = self.persons()
        if before and persons != before:
            constraint = f"the ledger {self.path} counts what each person loses who is told apart by {before!r}"
            remedy = (
                "configure data.persons as before; or name another population, on the record: fedcpsc ledger population"
                f" {self.path.parent} NAME --reason WHY, and silos.population likewise"
            )
            raise LedgerError(explain("data.persons", persons, constraint, remedy))

    def name_persons(self, persons: str) -> bool:
        """Records how persons are told apart; False where that stands there, or every record stands for itself.

        Args:
            persons: how persons are told apart, e.g. "column patient_id"; empty where every record stands for itself.

        Raises:
            LedgerError: where another way is recorded, or the ledger cannot be written.
        """
        with self._writing() as head:
            self.check_persons(persons)
            if not persons or self.persons():
                return False
            name = head["dataset_id"]
            note = {"from": name, "to": name, "reason": "how persons are told apart", "persons": persons}
            self._append("population", note=json.dumps(note))
            return True

    def _carry_rest(self, head: Row, trained: bool) -> None:
        """Charges all that is left, as private as everything before it was.

        No charge covers a DP-SGD training that was lost: where there may have been one, nothing is private any more.
        """
        releases = self.releases()
        exposed = head["unprotected"] or trained or any(not row["private"] for row in releases)
        exposed = exposed or any(row["mechanism"] == "dp_sgd" for row in releases)
        rest = Charge(
            max(0, head["answers_cap"] - head["answers_spent"]),
            max(0, head["mu2_cap"] - head["mu2_spent"]),
            private=not exposed and (head["mu2_spent"] > 0 or head["mu2_cap"] > 0),
            mechanism="unknown: rows lost",
        )
        self._append("carried", query_id=f"lost after {head['hash']}", **recorded(rest))


def recorded(charge: Charge) -> dict[str, str | int | float]:
    """A charge as columns of a row."""
    return vars(charge) | {"private": int(charge.private)}


def check_name(population: str) -> None:
    """Checks the name of a population.

    Raises:
        LedgerError: where it is not printable text of 1 to 120 characters.
    """
    if not population.isprintable() or not 0 < len(population) <= _LONGEST_NAME:
        constraint = f"must be printable text of 1 to {_LONGEST_NAME} characters"
        raise LedgerError(
            explain("population", population, constraint, "choose a name that stays, like 'clinic north'")
        )
