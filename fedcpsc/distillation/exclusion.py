# SPDX-License-Identifier: Apache-2.0
"""Silos that the operator leaves out by name (`aggregation.exclude`): to the run they are not part of the federation.

They are not asked, not charged, not waited for and no part of the quorum, and what the bank holds of their answers from
before counts nowhere. Whatever they say of themselves is not looked at either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.distillation.transport import SiloId, SiloTransport
from fedcpsc.errors import ConfigError, explain
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.bank_view import BankView, find_bank
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE
from fedcpsc.runs.lineage import read_lineage

__all__ = ["banked_silos", "check_classes_remain", "connect_silos", "without_excluded"]

_SHOWN = 20


def connect_silos(transport: SiloTransport, config: RunConfig, run_dir: Path) -> dict[SiloId, Description]:
    """Waits for the silos as `SiloTransport.connect` does, and not for those excluded that the run knows.

    An excluded name that no silo has given yet may be a slip of the pen: then all silos are waited for. Silos of an
    earlier run that have left are none of `silos.count`.

    Args:
        transport: way to the silos.
        config: configuration of the run.
        run_dir: folder of the run, which may hold the answers of an earlier attempt.

    Returns:
        Descriptions of all silos that joined, those that are excluded among them.

    Raises:
        BankError: the folder's answer bank is damaged.
    """
    lineage = read_lineage(run_dir)
    excluded, known = set(config.aggregation.exclude), banked_silos(run_dir)
    if lineage is not None:
        known -= lineage.left.keys()
    joined: dict[SiloId, Description] = {}
    while True:
        absent = (excluded & known) - joined.keys()
        before, joined = joined, transport.connect(config.silos.count - len(absent), config.queries.hello_timeout_s)
        if joined.keys() == before.keys():
            return joined


def without_excluded(
    joined: Mapping[SiloId, Description], config: RunConfig, banked: Collection[SiloId], tell: Callable[[str], None]
) -> dict[SiloId, Description]:
    """The silos that remain; those left out are told.

    Args:
        joined: descriptions of the silos that joined.
        config: configuration of the run.
        banked: names of the silos whose answers are banked, by an earlier attempt or an earlier run.
        tell: function called with one line for each event an operator should know.

    Raises:
        ConfigError: a name is no silo's, or no silo remains.
    """
    excluded = config.aggregation.exclude
    if not excluded:
        return dict(joined)
    silos = joined.keys() | set(banked)
    absent = [name for name in excluded if name not in silos]
    if absent and len(silos) + len(absent) > config.silos.count:
        constraint = f"no silo has this name; the {len(silos)} silos are {_some(sorted(silos))}"
        raise ConfigError(explain("aggregation.exclude", absent, constraint, "fix the name, or leave it out"))
    remaining = {silo: description for silo, description in joined.items() if silo not in excluded}
    if joined and not remaining:
        constraint = "excludes every silo that has joined"
        raise ConfigError(explain("aggregation.exclude", list(excluded), constraint, "leave at least one"))
    for name in excluded:
        tell(f"{name} is excluded: not asked, and what it answered before is not used")
    if absent:
        tell(f"excluded and not seen, so that the name cannot be checked: {_some(absent)}")
    return remaining


def check_classes_remain(run_dir: Path, config: RunConfig, classes: int) -> None:
    """Refuses to leave out silos without which an earlier attempt's classes are not all known: the student has them.

    Args:
        run_dir: folder of the run, which may hold the answers of an earlier attempt.
        config: configuration of the run.
        classes: number of classes of the silos that remain.

    Raises:
        ConfigError: a class is known to excluded silos alone.
        BankError: the folder's answer bank is damaged.
    """
    bank = _find_bank(run_dir) if config.aggregation.exclude else None
    if bank is not None and bank.classes != classes:
        constraint = f"leaves {classes} of the run's {bank.classes} classes: excluded silos alone know the others"
        remedy = "begin a new run without them, by another --name"
        raise ConfigError(explain("aggregation.exclude", list(config.aggregation.exclude), constraint, remedy))


def banked_silos(run_dir: Path) -> set[SiloId]:
    """Silos that a run's answer bank was begun with; empty where there is no bank yet.

    Raises:
        BankError: it is damaged.
    """
    bank = _find_bank(run_dir)
    return set() if bank is None else set(bank.silos)


def _find_bank(run_dir: Path) -> BankView | None:
    """The bank, where its journal has a first line: a crash may have left half of one."""
    journal = run_dir / BANK_FOLDER / JOURNAL_FILE
    return find_bank(run_dir) if journal.exists() and b"\n" in journal.read_bytes() else None


def _some(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
