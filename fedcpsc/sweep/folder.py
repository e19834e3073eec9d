# SPDX-License-Identifier: Apache-2.0
"""What lies in a sweep's folder already: taken up, moved aside, or refused. Two plans are never mixed in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedcpsc.config import load_config
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.runs.config_changes import changed_values
from fedcpsc.runs.layout import BANK_FOLDER, CONFIG_FILE, LOCK_FILE
from fedcpsc.runs.lineage import read_lineage
from fedcpsc.runs.result import read_result
from fedcpsc.sweep.expand import PlannedRun, Sweep
from fedcpsc.sweep.layout import PLAN_FILE, RUNS_FOLDER
from fedcpsc.typed_yaml import save_config

__all__ = [
    "begun_runs",
    "check_ours",
    "check_unchanged",
    "finished_runs",
    "is_refit",
    "left_out",
    "move_aside",
    "take_up",
]

_MOST_SHOWN = 3
_ANSWERS = {False: "own", True: "shared"}


def take_up(sweep: Sweep) -> None:
    """Makes the sweep's folder, or looks whether an earlier attempt in it fits the plan; leaves the plan there.

    Settings, seeds and values of a grid may be added or left out. What an earlier attempt began must have the same
    configuration now.

    Args:
        sweep: the sweep.

    Raises:
        RunError: it cannot be written, or a run in it began with another configuration.
    """
    folder = sweep.folder
    check_unchanged(sweep)
    try:
        (folder / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
        save_config(sweep.plan, folder / PLAN_FILE)
    except OSError as error:
        constraint = f"cannot be written ({error.strerror})"
        raise RunError(explain("sweep", str(folder), constraint, "choose another folder with --out")) from error


def check_ours(folder: Path) -> None:
    """Does nothing where the folder is a sweep's, or may become one.

    Args:
        folder: folder of the sweep; it may not exist yet.

    Raises:
        ConfigError: it holds something else.
    """
    if not folder.exists() or (folder / PLAN_FILE).exists():
        return
    there = [path.name for path in folder.iterdir() if path.name != LOCK_FILE] if folder.is_dir() else ["a file"]
    if there:
        constraint = f"holds no sweep, but {', '.join(sorted(there)[:_MOST_SHOWN])}"
        raise ConfigError(explain("sweep", str(folder), constraint, "choose another folder with --out"))


def check_unchanged(sweep: Sweep) -> None:
    """Does nothing where every run that was begun has the configuration that the plan now gives it.

    Raises:
        RunError: naming runs with what changed.
    """
    changed = [
        (run.name, differences) for run in begun_runs(sweep).values() if (differences := _differences(sweep, run))
    ]
    if changed:
        shown = "; ".join(f"{name} ({', '.join(keys[:_MOST_SHOWN])})" for name, keys in changed[:_MOST_SHOWN])
        more = f" and {len(changed) - _MOST_SHOWN} more" if len(changed) > _MOST_SHOWN else ""
        constraint = f"{len(changed)} runs began with another configuration: {shown}{more}"
        remedy = "give a changed setting another name, put the plan back, or begin anew with --overwrite"
        raise RunError(explain("sweep", str(sweep.folder), constraint, remedy))


def begun_runs(sweep: Sweep) -> dict[str, PlannedRun]:
    """Runs that an earlier attempt began, finished or not, by name."""
    return {run.name: run for run in sweep.everything if (run.folder / CONFIG_FILE).exists()}


def finished_runs(sweep: Sweep) -> dict[str, PlannedRun]:
    """Runs that are done, by name; one whose result is damaged is not."""
    return {run.name: run for run in sweep.everything if _is_finished(run)}


def left_out(sweep: Sweep) -> list[str]:
    """Names of runs in the folder that the plan no longer has."""
    planned = {run.name for run in sweep.everything}
    folder = sweep.folder / RUNS_FOLDER
    there = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))
    return [name for name in there if name not in planned]


def move_aside(folder: Path) -> None:
    """Moves an earlier sweep to `<name>.previous`, and so deletes only the one before that.

    Args:
        folder: folder of the sweep; where it holds none, nothing is done.

    Raises:
        RunError: it cannot be moved.
    """
    if not (folder / PLAN_FILE).exists():
        return
    previous = folder.with_name(f"{folder.name}.previous")
    try:
        if (previous / PLAN_FILE).exists():
            shutil.rmtree(previous)
        folder.rename(previous)
    except OSError as error:
        constraint = f"cannot be moved to {previous.name} ({error.strerror})"
        raise RunError(explain("sweep", str(folder), constraint, "choose another folder with --out")) from error


def _is_finished(run: PlannedRun) -> bool:
    try:
        return read_result(run.folder) is not None
    except RunError:
        return False  # its process says what is damaged


def is_refit(run_dir: Path) -> bool:
    """Whether the run in a folder was fitted to answers of another.

    Args:
        run_dir: folder of a run that was begun.

    Raises:
        RunError: what says so is damaged.
    """
    found = read_lineage(run_dir)
    return found is not None and found.kind == "refit"


def _differences(sweep: Sweep, run: PlannedRun) -> list[str]:
    """Keys with the values before and now, but for places and for what changes speed alone."""
    changed = {
        key: values
        for key, values in changed_values(load_config(run.folder / CONFIG_FILE), run.config).items()
        if not key.startswith(("runtime.", "output.")) and key != "silos.root"
    }
    before, now = is_refit(run.folder), sweep.bank_of(run) is not None
    if before != now and (run.folder / BANK_FOLDER).exists():
        changed["answers"] = _ANSWERS[before], _ANSWERS[now]
    return [f"{key}: {old} -> {new}" for key, (old, new) in changed.items()]
