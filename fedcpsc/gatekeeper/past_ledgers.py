# SPDX-License-Identifier: Apache-2.0
"""Ledgers that were set aside, in `past/` of a silo's folder: what they hold still counts for its population."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from fedcpsc.errors import LedgerError, explain
from fedcpsc.gatekeeper.composition import Account
from fedcpsc.ledger.budget import Charge, Status
from fedcpsc.ledger.chain import Row
from fedcpsc.ledger.ledger import Ledger

__all__ = [
    "PAST",
    "Past",
    "carry_over",
    "check_in_use",
    "check_past",
    "is_older_copy",
    "past_ledgers",
    "past_path",
]

PAST = "past"
_NOTHING = "nothing was released"


class CarriedNote(TypedDict):
    """Note of a row `carried`.

    Attributes:
        source, head, events: name of the ledger's file, hash of its newest row and number of its rows.
        epsilon, delta, history: proof of a DP-SGD training, where the charge is one.
    """

    source: str
    head: str
    events: int
    epsilon: NotRequired[float]
    delta: NotRequired[float]
    history: NotRequired[list[list[float]]]


@dataclass(frozen=True)
class Past:
    """A sound ledger in `past/`.

    Attributes:
        path: file of the ledger.
        status: totals of the ledger.
        charges: charges to carry over: name, charge, note.
    """

    path: Path
    status: Status
    charges: tuple[tuple[str, Charge, CarriedNote], ...]

    @property
    def released(self) -> bool:
        """Whether anything left the silo by it."""
        return any(charge.mechanism != _NOTHING for _, charge, _ in self.charges)


def past_path(folder: Path, population: str) -> Path:
    """Where the ledger of a population lies while it is set aside."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", population).strip("-")[:40]
    return folder / PAST / f"ledger-{plain}-{hashlib.sha256(population.encode()).hexdigest()[:12]}.sqlite"


def past_ledgers(folder: Path, without: frozenset[str] = frozenset()) -> list[Past]:
    """Every ledger in `past/`, checked whole.

    Args:
        folder: the silo's folder.
        without: names of files that are not looked at.

    Raises:
        LedgerError: where one cannot be read or is not sound.
    """
    return [_read(path) for path in _files(folder) if path.name not in without]


def carry_over(past: Past, ledger: Ledger) -> int:
    """Records what a past ledger holds in the population's own; what was recorded before is left out.

    Returns:
        How many rows were written.

    Raises:
        LedgerError: where the ledger cannot be written.
    """
    there = _carried_names(ledger)
    new = [(name, charge, facts) for name, charge, facts in past.charges if name not in there]
    for name, charge, facts in new:
        ledger.carry(name, charge, json.dumps(facts))
    return len(new)


def _carried_sources(ledger: Account) -> set[str]:
    """Names of the files in `past/` that the ledger has taken account of."""
    notes = (json.loads(row["note"]) for row in ledger.releases() if row["kind"] == "carried" and row["note"])
    return {str(note["source"]) for note in notes if isinstance(note, dict) and "source" in note}


def check_past(folder: Path, population: str, ledger: Account) -> None:
    """Refuses to go on where `past/` holds a ledger of this very population that the one in use does not count.

    Raises:
        LedgerError: naming the file.
    """
    known = _carried_sources(ledger)
    for path in _files(folder):
        if path.name in known:
            continue
        with contextlib.closing(Ledger.read(path)) as past:
            status = past.status()
        if status.population == population and not is_older_copy(status, ledger):
            why = f"is a ledger of the population {population!r} too, and is not counted"
            remedy = f"count it: fedcpsc ledger population {folder} {population!r} --reason TEXT"
            raise LedgerError(explain("past ledger", str(path), why, remedy))


def is_older_copy(status: Status, ledger: Account) -> bool:
    """Whether a ledger's newest row is a row of this one, so that this one counts all that it holds."""
    return any(row["hash"] == status.head for row in ledger.export())


def check_in_use(path: Path) -> None:
    """Refuses where a process has the ledger open: it would go on charging a file that was set aside.

    Raises:
        LedgerError: naming the remedy.
    """
    if _holders(path):
        raise LedgerError(explain("ledger", str(path), "is in use", "stop the silo's gatekeeper first"))


def _holders(path: Path) -> bool:
    """Whether a process that this user may look into has the file open; known on Linux alone."""
    wanted = path.stat()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or it ended just now
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found = link.stat()
                    if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                        return True
    return False


def _files(folder: Path) -> list[Path]:
    return sorted((folder / PAST).glob("*.sqlite")) if (folder / PAST).is_dir() else []


def _read(path: Path) -> Past:
    with contextlib.closing(Ledger.read(path)) as ledger:
        status = ledger.verify()
        found = Past(path, status, tuple(_charges(path.name, status, ledger.export())))
    total = sum(charge.mu2 for _, charge, _ in found.charges), sum(charge.answers for _, charge, _ in found.charges)
    if total != (status.spent.mu2, status.spent.answers):
        raise LedgerError(explain("ledger", str(path), "does not add up", "restore it: fedcpsc ledger restore"))
    return found


def _charges(source: str, status: Status, rows: Iterator[Row]) -> Iterator[tuple[str, Charge, CarriedNote]]:
    """One charge for each release, two for the answers: those under a guarantee, and those without."""
    facts: CarriedNote = {"source": source, "head": status.head, "events": status.events}
    empty = True
    noisy, bare = Charge(0, 0, private=True, mechanism="answers"), Charge(0, 0, mechanism="answers")
    for row in rows:
        charge = Charge(
            row["answers"],
            row["mu2"],
            bool(row["private"]),
            row["mechanism"],
            row["model"],
            row["sensitivity"],
            row["sigma"],
        )
        if row["kind"] in ("released", "carried") or (row["kind"] == "charged" and not charge.answers):
            note = json.loads(row["note"]) if row["note"] else {}
            proof: Any = {name: note[name] for name in ("epsilon", "delta", "history") if name in note}
            empty = False
            asker = f"{row['principal']} " if row["principal"] else ""  # two askers may have used one id
            yield (
                f"{source}: {asker}{row['query_id']}",
                charge,
                {**facts, **proof},
            )
        elif row["kind"] == "charged":
            if charge.private:
                noisy = _added(noisy, charge)
            else:
                bare = _added(bare, charge)
    for name, charge in (("answers", noisy), ("answers without guarantee", bare)):
        if charge.answers or charge.mu2:
            empty = False
            yield f"{source}: {name}", charge, facts
    if empty:
        yield f"{source}: nothing", Charge(0, private=True, mechanism=_NOTHING), facts


def _added(one: Charge, other: Charge) -> Charge:
    return Charge(**(asdict(one) | {"answers": one.answers + other.answers, "mu2": one.mu2 + other.mu2}))


def _carried_names(ledger: Account) -> set[str]:
    return {row["query_id"] for row in ledger.releases() if row["kind"] == "carried"}
