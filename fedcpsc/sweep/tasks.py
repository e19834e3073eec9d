# SPDX-License-Identifier: Apache-2.0
"""What a sweep has to do, as tasks: each is one process, and some wait for others."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from fedcpsc.sweep.expand import PlannedRun, Sweep
from fedcpsc.sweep.made_silos import silos_key
from fedcpsc.typed_yaml import Tree

__all__ = ["Job", "Task", "plan_tasks"]


class Job(TypedDict):
    """What a task's process is told, as JSON.

    Attributes:
        do: make silos; run over copies of them; or fit a student to the answers of another run.
        config: configuration of the run as a tree; of `silos` that of a run that takes copies.
        made: folder of the silos' folders as they were made.
        run_dir, silos: folder of the run, and of its silos' folders; of a refit those of the run that asked.
        source: folder of the run whose answers a refit takes; empty for the others.
        overrides: what a refit changes in the configuration of that run, as KEY=VALUE; empty for the others.
    """

    do: Literal["silos", "run", "refit"]
    config: Tree
    made: str
    run_dir: str
    silos: str
    source: str
    overrides: list[str]


@dataclass(frozen=True)
class Task:
    """One process's work.

    Attributes:
        name: name of the task, unique, also of its log.
        title: words for people.
        job: what the process is told.
        after: names of the tasks that must be done before.
        run: the run that it does; None where it makes silos.
    """

    name: str
    title: str
    job: Job
    after: tuple[str, ...]
    run: PlannedRun | None


def plan_tasks(sweep: Sweep, made: Path, missing: Sequence[PlannedRun], begun: Container[str]) -> list[Task]:
    """The tasks of the runs that are not done, in the order in which they are to begin.

    Args:
        sweep: the sweep.
        made: folder of the folders of silos as they are made.
        missing: runs that are not done, in order, those that others share answers of among them.
        begun: names of those that have silos of their own already, so that none are made for them.
    """
    tasks: dict[str, Task] = {}
    names = {run.name for run in missing}
    for run in missing:
        bank = sweep.bank_of(run)
        if bank is not None:
            after = (bank.name,) if bank.name in names else ()
            job = _job("refit", run, made)
            job["source"], job["overrides"] = str(bank.folder), run.setting.overrides
            tasks[run.name] = Task(run.name, run.name, job, after, run)
            continue
        key = silos_key(run.config)
        name = f"silos-{key}"
        if run.name not in begun and name not in tasks:
            takers = sum(
                other.name not in begun and sweep.bank_of(other) is None and silos_key(other.config) == key
                for other in missing
            )
            title = f"silos of seed {run.seed}, for {takers} run{'s' * (takers > 1)}"
            tasks[name] = Task(name, title, _job("silos", run, made / key), (), None)
        after = () if run.name in begun else (name,)
        tasks[run.name] = Task(run.name, run.name, _job("run", run, made / key), after, run)
    return list(tasks.values())


def _job(do: Literal["silos", "run", "refit"], run: PlannedRun, made: Path) -> Job:
    return {
        "do": do,
        "config": run.config.model_dump(mode="json"),
        "made": str(made),
        "run_dir": str(run.folder),
        "silos": str(run.silos),
        "source": "",
        "overrides": [],
    }
