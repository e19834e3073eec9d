# SPDX-License-Identifier: Apache-2.0
"""Who may work in a run's folder, and whether what lies there can be gone on with. What was paid for is never deleted.

One process at a time works on a run (`worked_on_alone`). A folder that holds a run is refused, resumed or moved aside
(`claim`); a run is resumed only with its own configuration and only where its files are whole (`check_resumable`), and
this is looked at before anything is written.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import BankError, RunError, explain
from fedcpsc.files import explained_writes
from fedcpsc.runs.bank_view import find_bank
from fedcpsc.runs.config_changes import changed_values, in_words
from fedcpsc.runs.layout import (
    BANK_FOLDER,
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    JOURNAL_FILE,
    LOCK_FILE,
    RESULT_FILE,
    TIMELINE_FILE,
)
from fedcpsc.runs.lineage import read_lineage
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.read import gather
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import read_timeline

__all__ = ["Existing", "check_resumable", "check_run_folder", "claim", "finished", "left_alone", "worked_on_alone"]

_CHANGEABLE = ("runtime.", "output.", "evaluation.every", "evaluation.batch_size")
"""Beginnings of the keys that a resumed run may have other values of: no student depends on them."""


class Existing(Enum):
    """What to do with a run that lies there already."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


def claim(run_dir: Path, existing: Existing) -> bool:
    """Makes the folder ready; returns whether a run is to be resumed in it.

    `OVERWRITE` moves the earlier run to `<name>.previous`, and so deletes only the one before that.

    Raises:
        RunError: it holds a run and `existing` is REFUSE, or it cannot be moved aside.
    """
    if not (run_dir / CONFIG_FILE).exists():
        return False
    if existing is Existing.REFUSE:
        state = "a finished run" if (run_dir / RESULT_FILE).exists() else "an unfinished run"
        remedy = "go on with --resume, start anew with --overwrite, or give the new run a --name"
        raise RunError(explain("run", str(run_dir), f"holds {state} already", remedy))
    if existing is Existing.RESUME:
        return True
    previous = run_dir.with_name(f"{run_dir.name}.previous")
    try:
        if previous.exists():
            shutil.rmtree(previous)
        run_dir.rename(previous)
    except OSError as error:
        constraint = f"cannot be moved to {previous.name} ({error.strerror})"
        raise RunError(explain("run", str(run_dir), constraint, "give the new run a --name")) from error
    return False


@contextmanager
def worked_on_alone(run_dir: Path) -> Iterator[None]:
    """Holds the run's folder, which is made; a process that dies lets go of it.

    Raises:
        RunError: another process works on the run: two would mix what they write.
    """
    with explained_writes(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / LOCK_FILE).open("w", encoding="ascii")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for its end, or stop that one first"
            raise RunError(explain("run", str(run_dir), "another process works on it", remedy)) from error
        yield


@contextmanager
def left_alone(run_dir: Path) -> Iterator[None]:
    """Keeps others from going on with the run while it is read; nothing in its folder is changed.

    Args:
        run_dir: folder of the run.

    Raises:
        RunError: a process works on it at this moment.
    """
    path = run_dir / LOCK_FILE
    with path.open("rb") if path.exists() else nullcontext() as lock:  # an earlier version's run, or a copy, has none
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for its end, or stop it first: what it has banked is kept"
            raise RunError(explain("run", str(run_dir), "another process works on it", remedy)) from error
        yield


def check_run_folder(
    run_dir: Path, config: RunConfig, *, resume: bool, tell: Callable[[str], None] = lambda line: None
) -> None:
    """Refuses to mix two runs in one folder, and to go on with files that are damaged. Nothing is written.

    Args:
        run_dir: folder of the run.
        config: configuration that the run is to have.
        resume: whether the run that lies there is to be gone on with.
        tell: function called with one line for each file that has no checksum, as in earlier versions.

    Raises:
        RunError: the folder holds a run and `resume` is off; or it is on and the configurations differ, or a file is
            damaged.
        BankError: the answer bank is damaged.
    """
    if not (run_dir / CONFIG_FILE).exists():
        return
    if not resume:
        remedy = "go on with it (--resume, in a deployment resume = true), or choose another output.name or folder"
        raise RunError(explain("run", str(run_dir), "holds a run already", remedy))
    _check_unchanged(run_dir, config)
    if (lineage := read_lineage(run_dir)) is not None and lineage.kind == "refit":
        constraint = "was made by fedcpsc refit, and is not gone on with: it asks no silo anything"
        remedy = "make it again with fedcpsc refit and --overwrite, or go on with its answers by fedcpsc run --from"
        raise RunError(explain("run", str(run_dir), constraint, remedy))
    check_resumable(run_dir, config, tell)


def finished(run_dir: Path, config: RunConfig) -> RunResult | None:
    """The result of a run that needs no resuming; None of one that does, once it is known that it can be resumed.

    A finished run needs it where `aggregation.exclude` names other silos than those its student does without.

    Raises:
        RunError, BankError: as `check_run_folder`; or the run has finished, and what it left is damaged.
    """
    if not (run_dir / RESULT_FILE).exists():
        check_run_folder(run_dir, config, resume=True)
        return None
    from fedcpsc.runs.student import check_student  # noqa: PLC0415 - brings torch

    _check_unchanged(run_dir, config)
    result = gather(run_dir).result
    if result is not None and set(result.get("excluded", ())) != set(config.aggregation.exclude):
        check_run_folder(run_dir, config, resume=True)
        return None
    check_student(run_dir)
    return result


def check_resumable(run_dir: Path, config: RunConfig, tell: Callable[[str], None] = lambda line: None) -> None:
    """Reads all that a resumed run goes on with, and holds it against its checksums.

    Half a last line, which a crash leaves, is no damage.

    Args:
        run_dir: folder of the run.
        config: configuration of the run.
        tell: function called with one line for each file that has no checksum, as in earlier versions.

    Raises:
        RunError: metrics.jsonl, timeline.jsonl or the checkpoint is damaged.
        BankError: the answer bank is, or its journal ends before the rounds that the checkpoint has seen.
    """
    from fedcpsc.runs.checkpoint import read_state, rounds_asked  # noqa: PLC0415 - brings torch

    read_metrics(run_dir)
    read_timeline(run_dir / TIMELINE_FILE)
    journal = run_dir / BANK_FOLDER / JOURNAL_FILE
    begun = journal.exists() and b"\n" in journal.read_bytes()
    bank = find_bank(run_dir) if begun else None
    if bank is not None and not bank.check_sums():
        tell(f"{bank.folder}: what an earlier version wrote has no checksums, and damage in it cannot be seen")
    state = read_state(run_dir / CHECKPOINT_FOLDER, tell=tell)
    asked = (rounds_asked(state) or (0,))[-1] if state is not None else 0
    needed = RoundPlan.of(config, read_lineage(run_dir)).images_before(asked)
    kept = 0 if bank is None else bank.rows
    if kept < needed:
        constraint = f"holds {kept:,} images, the checkpoint of round {asked} of {needed:,}"
        remedy = "restore the bank's folder from a backup, or begin anew with --overwrite: silos count new answers anew"
        raise BankError(explain("journal", str(journal), constraint, remedy))


def _check_unchanged(run_dir: Path, config: RunConfig) -> None:
    changed = {
        key: values
        for key, values in changed_values(load_config(run_dir / CONFIG_FILE), config).items()
        if not key.startswith(_CHANGEABLE) and key != "aggregation.exclude"  # the student is fitted anew
    }
    if changed:
        remedy = "resume with the configuration it began with"
        constraint = f"began with another configuration: {in_words(changed)}"
        raise RunError(explain("run", str(run_dir), constraint, remedy))
