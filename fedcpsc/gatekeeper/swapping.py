# SPDX-License-Identifier: Apache-2.0
"""One population's ledger in the place of another's, with its high-water mark; what is set aside lies in `past/`.

    1. the new ledger is whole in past/        2. the old one is renamed to past/, then its mark
    3. the new one is renamed into place       4. its mark

A crash leaves the folder without a ledger, or one beside another's mark: neither opens, and `swap` goes on from there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from fedcpsc.errors import LedgerError, explain
from fedcpsc.gatekeeper.past_ledgers import check_in_use, past_path
from fedcpsc.gatekeeper.policy import Policy, mark_path
from fedcpsc.ledger.budget import Budget
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.ledger.mark import default_mark

__all__ = ["population_in_place", "prepare", "swap"]


def population_in_place(folder: Path) -> str | None:
    """Population of the ledger that lies in the folder, which nobody uses; None where none does.

    Raises:
        LedgerError: where it is in use or not sound.
    """
    path = folder / LEDGER_FILE
    if not path.exists():
        return None
    check_in_use(path)
    with contextlib.closing(Ledger.read(path)) as ledger:
        return ledger.verify().population


def prepare(
    folder: Path, policy: Policy, old: str, new: str, reason: str, budget: Budget, unit: str, delta: float
) -> bool:
    """Leaves the ledger of the population `new` whole in `past/`: the one that was set aside, or a new one.

    Its newest row of kind `population` holds the reason. True where it is a new one.

    Args:
        folder: the silo's folder.
        policy: policy of the silo.
        old: name of the population before.
        new: name of the population that follows.
        reason: the owner's words.
        budget: caps of a new ledger.
        unit: what its guarantee protects.
        delta: delta of its epsilons, in (0, 1).

    Raises:
        LedgerError: where the one set aside is damaged, or none can be made.
    """
    path, mark = past_path(folder, new), _aside(folder, policy, new)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if path.exists():
        with contextlib.closing(Ledger.open(path, new, high_water_mark=mark, new_mark=not mark.exists())) as ledger:
            ledger.name_population(new, f"taken up again after {old!r}: {reason}")
        return False
    partial = path.with_name(path.name + ".partial")
    for stale in (partial, partial.with_name(partial.name + "-journal"), mark):
        stale.unlink(missing_ok=True)
    with contextlib.closing(
        Ledger.create(partial, old, budget.answers, mu2=budget.mu2, unit=unit, delta=delta, high_water_mark=mark)
    ) as ledger:
        ledger.name_population(new, reason)
    _move(partial, path)
    return True


def swap(folder: Path, policy: Policy, old: str, new: str) -> None:
    """Puts the ledger that `prepare` left into place, and the old one into `past/`; goes on after a crash.

    Raises:
        LedgerError: where a file cannot be moved.
    """
    path, mark = folder / LEDGER_FILE, mark_path(folder, policy)
    if population_in_place(folder) == old and old != new:
        _move(path, past_path(folder, old))
    aside_old, aside_new = _aside(folder, policy, old), _aside(folder, policy, new)
    if aside_new.exists() and mark.exists() and not aside_old.exists():  # the mark in place is still the old one's
        _move(mark, aside_old)
    if not path.exists():
        _move(past_path(folder, new), path)
    if aside_new.exists():
        _move(aside_new, mark)


def _aside(folder: Path, policy: Policy, population: str) -> Path:
    """Where a population's mark lies while its ledger is set aside: on the volume that the policy chose for marks."""
    ledger = past_path(folder, population)
    if policy.high_water_mark is None:
        return default_mark(ledger)
    mark = mark_path(folder, policy)
    return mark.with_name(f"{mark.name}.{ledger.stem}")


def _move(source: Path, target: Path) -> None:
    """Renames a file with the journals that a ledger keeps beside it, also one of the earlier version."""
    try:
        for end in ("-journal", "-wal", "-shm"):
            beside = source.with_name(source.name + end)
            if beside.exists():
                beside.replace(target.with_name(target.name + end))
        source.replace(target)
    except OSError as error:
        why = f"cannot be moved to {target} ({error.strerror})"
        raise LedgerError(explain("ledger", str(source), why, "make both folders writable, then try again")) from error
