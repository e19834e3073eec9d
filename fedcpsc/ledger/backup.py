# SPDX-License-Identifier: Apache-2.0
"""Copies of a ledger that can be trusted: made while its gatekeeper runs, and put back only where nothing is forgotten.

A backup is a ledger's file: `fedcpsc ledger show FILE` says what it holds. What a restore may do:

    there: no ledger, no mark             a new machine: put back, recorded
    there: sound, the backup has its rows put back, recorded
    there: sound, with rows of its own    refused: the backup is older, or the two went separate ways
    there: lost or damaged, mark reached  put back, recorded: all that left the silo is in it
    there: lost or damaged, otherwise     refused; with the owner's reason put back, and all that was left is spent

A backup of an earlier version is kept for a data set and knows no mark: where the ledger is lost or damaged, it counts
as one that lacks rows. In a folder that was migrated since, it gets the name of the folder's population. What other
ledgers counted for that population is not in it, so that no epsilon is promised afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedcpsc.errors import ConfigError, LedgerError, explain
from fedcpsc.ledger.budget import Status
from fedcpsc.ledger.clock import iso_time
from fedcpsc.ledger.file import connect, durable, translated
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.ledger.mark import HighWaterMark
from fedcpsc.ledger.reading import DATA_SET, LedgerReader, checked

__all__ = ["PAST", "back_up", "restore_backup"]

PAST = "past"
_BESIDE = ("-journal", "-wal", "-shm")


def back_up(path: Path, file: Path) -> Status:
    """Copies a ledger, also while its gatekeeper runs, and verifies the copy; returns the copy's totals.

    Args:
        path: ledger's file.
        file: file to make; it must not exist. A folder on another volume survives this one.

    Raises:
        LedgerError: where the ledger is missing or not sound, or the file exists or cannot be written.
    """
    with contextlib.closing(LedgerReader.read(path)) as source:
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError as error:
            remedy = "give each backup a name of its own, such as today's date"
            raise LedgerError(explain("backup", str(file), "exists already", remedy)) from error
        except OSError as error:
            why = f"cannot be made ({error.strerror})"
            raise LedgerError(explain("backup", str(file), why, "name a folder that can be written")) from error
        partial = file.with_name(f"{file.name}.partial")
        try:
            status = _copy(source, partial)
            os.replace(partial, file)
        except BaseException:
            file.unlink()
            partial.unlink(missing_ok=True)
            raise
    return status


def restore_backup(
    path: Path,
    file: Path,
    population: str,
    mark: HighWaterMark,
    *,
    unit: str | None = None,
    accept_loss: bool = False,
    reason: str = "",
    trained: bool = False,
) -> list[str]:
    """Puts a backup in a ledger's place (see the table above); returns what was done, in sentences.

    Args:
        path: ledger's file, which may be missing or damaged.
        file: backup, which is left as it is.
        population: name of the silo's population; the backup's must be the same, or a data set's of an earlier version.
        mark: the ledger's high-water mark.
        unit: what one guarantee must protect; None takes the backup's own.
        accept_loss: put back a backup that lacks rows; all that it has left is then spent.
        reason: why, for the record; needed with `accept_loss`.
        trained: whether the silo's teachers are trained with DP-SGD: a lost row may then be a training, which no
            budget covers, and no epsilon is promised after the loss.

    Raises:
        LedgerError: where the backup is not sound, of another population or unit, or would forget charges.
        ConfigError: where a reason is missing.
    """
    if accept_loss and not reason.strip():
        raise ConfigError(explain("--reason", reason, "is missing", "say why rows are lost: it stays in the ledger"))
    earlier = _is_earlier(file)
    any_data_set = earlier and not population.startswith(DATA_SET)
    wanted = None if any_data_set else population
    with contextlib.closing(LedgerReader.read(file, population=wanted, unit=unit)) as backup:
        status = backup.verify()
        with _held(path) as there:
            lost = _loss(path, there, backup, mark)
            if earlier and (any_data_set or there is None):
                lost = lost or "is of an earlier version, without a mark that tells whether it is the newest"
            if lost and not accept_loss:
                raise LedgerError(
                    explain(
                        "backup",
                        f"row {status.events} of {iso_time(status.time_ns)}",
                        lost,
                        "restore a newer backup; or accept the loss: --accept-loss --reason WHY, which spends the rest",
                    )
                )
            partial = path.with_name(f"{path.name}.restoring")
            _remove(partial)
            _copy(backup, partial)
            facts = {"how": "backup", "file": file.name, "lost": lost, "reason": reason}
            own_mark = partial.with_name(f"{partial.name}.mark")
            ledger = Ledger.accept(
                partial,
                status.population,
                facts,
                high_water_mark=own_mark,
                spend_rest=bool(lost),
                trained=trained or earlier,
            )
            if any_data_set:
                ledger.name_population(population, reason)
            after = ledger.status()
            ledger.close()
            kept = _set_aside(path, mark)
            os.replace(partial, path)
            _remove(partial)
            own_mark.unlink()
    mark.begin(after.events, after.head)
    return _words(status, after, kept, lost)


def _is_earlier(file: Path) -> bool:
    """Whether a backup is kept for a data set, as an earlier version did.

    Raises:
        LedgerError: where the backup is missing or not sound.
    """
    with contextlib.closing(LedgerReader.read(file)) as backup:
        return backup.status().population.startswith(DATA_SET)


def _loss(path: Path, there: LedgerReader | None, backup: LedgerReader, mark: HighWaterMark) -> str:
    """What the backup would forget, empty where it holds all that is known.

    Raises:
        LedgerError: where a sound ledger is there that has rows of its own.
    """
    mine = backup.status()
    if there is not None:
        found = there.status()
        if not backup.holds(found.events, found.head):
            older = there.holds(mine.events, mine.head)
            why = "is older than the ledger there" if older else "and the ledger there went separate ways"
            remedy = (
                "keep using the ledger there: nothing is lost"
                if older
                else "keep the one that has answered, and bring the other's charges over: fedcpsc ledger migrate"
            )
            raise LedgerError(explain("backup", f"row {mine.events}, there row {found.events}", why, remedy))
    try:
        seen = mark.read()
    except LedgerError:
        return "may be older than the high-water mark, which cannot be read"
    if seen is None:
        return "may be older than the ledger that is there, which is damaged" if path.exists() and there is None else ""
    return "" if backup.holds(*seen) else f"is older than the high-water mark, row {seen[0]}"


@contextlib.contextmanager
def _held(path: Path) -> Iterator[LedgerReader | None]:
    """The ledger that is there, kept from every other process meanwhile; None where there is none that is sound."""
    if not path.is_file():
        yield None
        return
    with translated(path):
        database = connect(path)
    with contextlib.closing(database):
        try:
            with translated(path):
                checked(database)
        except LedgerError:
            yield None
            return
        with translated(path):
            durable(database)
            database.execute("BEGIN EXCLUSIVE")
            try:
                yield LedgerReader(path, database, HighWaterMark(path))
            finally:
                database.execute("ROLLBACK")


def _copy(source: LedgerReader, to: Path) -> Status:
    """A verified copy in a new file, on the disk."""
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with translated(to):
        with contextlib.closing(sqlite3.connect(to)) as target:
            source.copy_to(target)
        with open(to, "rb") as file:
            os.fsync(file.fileno())
    with contextlib.closing(LedgerReader.read(to)) as copy:
        return copy.verify()


def _set_aside(path: Path, mark: HighWaterMark) -> Path | None:
    """Moves what is there into a folder of its own in past/, with a copy of the mark; None where nothing is there."""
    files = [path, *(path.with_name(path.name + end) for end in _BESIDE)]
    files = [file for file in files if file.exists()]
    if not files and not mark.path.exists():
        return None
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    folder = path.parent / PAST / f"replaced-{now}"
    folder.mkdir(parents=True, mode=0o700)
    for file in files:
        os.replace(file, folder / file.name)
    if mark.path.exists():
        shutil.copy2(mark.path, folder / mark.path.name)
    return folder


def _remove(partial: Path) -> None:
    """Removes what a restore, this one or one that was cut short, left under a partial name."""
    for name in (partial.name, *(partial.name + end for end in _BESIDE)):
        partial.with_name(name).unlink(missing_ok=True)


def _words(backup: Status, after: Status, kept: Path | None, lost: str) -> list[str]:
    said = [
        f"restored: row {backup.events} of {iso_time(backup.time_ns)}, {backup.spent.answers} answers spent;"
        f" recorded, marked at row {after.events}",
        f"what was there is kept in {kept}"
        if kept
        else "nothing was there: this must be the newest backup, and the"
        " ledger that it was made of must not be used any more, or the two together spend the budget twice",
    ]
    if lost:
        said.append(
            f"the backup {lost}: what was spent since is unknown, so all that was left is spent."
            " To go on, raise the budget knowingly: fedcpsc ledger raise"
        )
    return said
