# SPDX-License-Identifier: Apache-2.0
"""The owner names the population whose records a silo holds: for a silo of an earlier version, or anew.

Both keep what was spent. Each step can be taken again, and the file that makes the change complete comes last: a crash
leaves a folder that no gatekeeper opens, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedcpsc.errors import LedgerError, ManifestError, explain
from fedcpsc.gatekeeper.guarantee import initial_budget
from fedcpsc.gatekeeper.past_ledgers import (
    Past,
    carry_over,
    is_older_copy,
    past_ledgers,
    past_path,
)
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path
from fedcpsc.gatekeeper.seen_records import allow_population, check_never_seen, records_seen
from fedcpsc.gatekeeper.swapping import population_in_place, prepare, swap
from fedcpsc.ledger.budget import MU2_UNIT, Budget, Charge, Status
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.ledger.owner import check_name
from fedcpsc.teachers.manifest import load_manifest, load_old_manifest, save_manifest

__all__ = ["change_population", "migrate"]


def migrate(
    folder: str | Path,
    population: str,
    unit: Literal["record", "person"] = "record",
    *,
    left_out: Sequence[str] = (),
    reason: str = "",
) -> list[str]:
    """Brings a silo of the earlier version, whose budgets were kept for data sets, to one population's budget.

    Every ledger in `past/` counts: the earlier version began one whenever the records changed. Taken again, it changes
    nothing.

    Args:
        folder: the silo's folder.
        population: name of the population whose records the silo holds, printable, 1 to 120 characters.
        unit: what one guarantee is to protect; "person" only where nothing was released yet.
        left_out: names of files in `past/` whose records are other people's.
        reason: why they are, for the record; needed where some are left out.

    Returns:
        What was done, as sentences for the owner.

    Raises:
        LedgerError: where a ledger is missing, damaged or in use, or the unit cannot be promised; nothing was changed.
        ManifestError: where the silo belongs to another population already.
    """
    folder = Path(folder)
    policy, old = load_policy(folder / POLICY_FILE), load_old_manifest(folder)
    if old is None:
        now = load_manifest(folder).population
        if now != population:
            why = f"the silo belongs to the population {now!r} already"
            remedy = f"name it anew: fedcpsc ledger population {folder} {population!r} --reason TEXT"
            raise ManifestError(explain("population", population, why, remedy))
        return [f"{folder} belongs to the population {population!r} already: nothing to do"]
    if left_out and not reason:
        raise LedgerError(explain("--reason", reason, "is needed with --except", "say whose records those are"))
    check_name(population)
    new, key = old.migrated(population, unit), old.dataset_id
    place = population_in_place(folder)
    past = [one for one in past_ledgers(folder) if one.status.population != population]
    unknown = set(left_out) - {one.path.name for one in past}
    if unknown:
        raise LedgerError(explain("--except", sorted(unknown), "no such ledger in past/", "give a file's name"))
    counted = [one for one in past if one.path.name not in left_out]
    if unit == "person":
        _to_persons(folder, policy, key, population, counted)
    elif place not in (key, population):
        why = f"the ledger in {folder} is of {place!r}" if place else f"there is no ledger in {folder}"
        raise LedgerError(explain("ledger", place, f"must be that of {key!r}: {why}", "restore the silo's own"))
    mark = mark_path(folder, policy)
    fresh = not mark.exists() and policy.high_water_mark is None  # the earlier version had a mark only by policy
    now = place if unit == "record" and place is not None else population
    done = []
    with contextlib.closing(Ledger.open(folder / LEDGER_FILE, now, high_water_mark=mark, new_mark=fresh)) as ledger:
        if now != population:
            ledger.name_population(population, "migrated from the budget of a data set")
        done.append(f"the ledger belongs to the population {population!r}; it was kept for {key}")
        for one in past:
            if one.path.name in left_out:
                facts = {"source": one.path.name, "head": one.status.head, "left_out": reason}
                nothing = Charge(0, private=True, mechanism="left out")
                ledger.carry(f"{one.path.name}: left out", nothing, json.dumps(facts))
                done.append(f"{one.path.name} does not count: {reason}")
        for one in counted:
            rows = carry_over(one, ledger)
            done.append(f"{one.path.name} counts: {one.status.spent.answers:,} answers ({rows} rows written)")
        done += _remainder(ledger.status())
    save_manifest(new, folder)
    return done


def _to_persons(folder: Path, policy: Policy, key: str, population: str, past: Sequence[Past]) -> None:
    """Puts a ledger that counts persons in the place of one that counted records, where nothing was released yet."""
    path = folder / LEDGER_FILE
    if population_in_place(folder) != population:
        source = path if path.exists() else past_path(folder, key)
        with contextlib.closing(Ledger.read(source, population=key)) as ledger:
            status, released = ledger.status(), ledger.releases()
        spent = status.queries or released or any(one.status.spent != Budget(0) or one.released for one in past)
        if spent:
            why = "something was released already, under a promise for records or none: it protects no person"
            remedy = "migrate with --unit record; only a population whose ledger is empty can begin with persons"
            raise LedgerError(explain("--unit", "person", why, remedy))
        reason = "migrated from the budget of a data set, to persons"
        if not past_path(folder, population).exists():
            prepare(folder, policy, key, population, reason, status.budget, "person", status.delta)
    swap(folder, policy, key, population)


def change_population(folder: str | Path, population: str, reason: str) -> list[str]:
    """Names another population for the same folder: the only way to another budget over it, on the record.

    The ledger of the population before is set aside whole; the other one's is taken up again where there was one, and
    begun with the policy's budget otherwise. Records that were seen under the old name may then be trained on. For the
    present name, ledgers of it that lie in `past/` uncounted are counted.

    Args:
        folder: the silo's folder.
        population: name of the other population, printable, 1 to 120 characters.
        reason: why, for the record.

    Returns:
        What was done, as sentences for the owner.

    Raises:
        LedgerError: where the reason is missing, a ledger is lost, damaged or in use, or the name is none.
    """
    folder = Path(folder)
    if not reason.strip():
        raise LedgerError(
            explain("--reason", reason, "is needed: it stays on the record", "say whose records these are")
        )
    check_name(population)
    policy, manifest = load_policy(folder / POLICY_FILE), load_manifest(folder)
    old, place = manifest.population, population_in_place(folder)
    if population == old:
        return _count_past(folder, policy, population)
    if place not in (old, population, None) or (place is None and not past_path(folder, old).exists()):
        why = f"the ledger of {old!r} is not in {folder}"
        raise LedgerError(explain("ledger", place, why, "restore it: fedcpsc ledger restore"))
    if place != population and not past_path(folder, population).exists():
        check_never_seen(folder, population)
    seen, done = records_seen(folder), []
    known = f"{seen.get(old, 0)} records were seen under the name {old!r}"
    if place != population:
        delta = getattr(policy.mechanism, "delta", 1e-5)
        words = f"{reason} ({known})"
        fresh = prepare(
            folder, policy, old, population, words, initial_budget(policy, manifest.unit), manifest.unit, delta
        )
        done.append(
            f"a new ledger begins for the population {population!r}: who is in both populations"
            " is protected less, and can lose the sum of both budgets"
            if fresh
            else f"the ledger of the population {population!r} is taken up again"
        )
    allow_population(folder, population, reason)
    swap(folder, policy, old, population)
    done += _count_past(folder, policy, population)
    save_manifest(manifest.model_copy(update={"population": population}), folder)
    return [*done, f"the ledger of {old!r} is kept: {past_path(folder, old)}; {known}"]


def _count_past(folder: Path, policy: Policy, population: str) -> list[str]:
    """Carries over what uncounted ledgers of this very population hold."""
    mark, done = mark_path(folder, policy), []
    with contextlib.closing(Ledger.open(folder / LEDGER_FILE, population, high_water_mark=mark)) as ledger:
        for one in past_ledgers(folder):
            if one.status.population == population and not is_older_copy(one.status, ledger):
                rows = carry_over(one, ledger)
                done.append(f"{one.path.name} counts for {population!r}: {rows} rows written")
        return done + _remainder(ledger.status())


def _remainder(status: Status) -> list[str]:
    shown = [f"spent: {status.spent.answers:,} of {status.budget.answers:,} answers"]
    if status.budget.mu2 or status.spent.mu2:
        shown.append(f"mu^2 {status.spent.mu2 / MU2_UNIT:.4g} of {status.budget.mu2 / MU2_UNIT:.4g} for noisy releases")
    if status.spent.answers >= status.budget.answers or status.spent.mu2 > status.budget.mu2:
        shown.append(
            "nothing is left: all that was ever released of these records counts; who wants more answers from them"
            " raises the budget, on the record: fedcpsc ledger raise"
        )
    return shown
