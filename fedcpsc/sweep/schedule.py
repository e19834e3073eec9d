# SPDX-License-Identifier: Apache-2.0
"""Does tasks in parallel processes, each as soon as it may begin; one that fails stops those alone that need it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import psutil

from fedcpsc.runs.follow import MetricsTail
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.sweep.layout import log_of
from fedcpsc.sweep.processes import TaskProcess, end_all, last_words
from fedcpsc.sweep.tasks import Task

__all__ = ["Outcome", "Progress", "Running", "Watch", "cores", "usual_jobs", "work"]

_LOOK_S: Final = 0.25
_MEMORY_OF_A_RUN: Final = 1 << 30  # bytes; torch and a small student take half of it


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        seconds: seconds that its process took; 0 where none was started.
        failure: reason why it failed, in words; None where it is done.
    """

    seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class Running:
    """A task under way.

    Attributes:
        task: the task.
        seconds: seconds since its process began.
        line: last line of its run's metrics.jsonl; None before the first.
        words: last line that its process printed; empty before the first.
    """

    task: Task
    seconds: float
    line: MetricsLine | None
    words: str


@dataclass(frozen=True)
class Progress:
    """How far the tasks are.

    Attributes:
        running: tasks under way, the oldest first.
        outcomes: outcomes of the tasks that ended, by name, in that order.
        total: number of all tasks.
        seconds: seconds since the first began.
        ended: task that ended just now, with its outcome; None at the looks between.
        began: task that began just now; None else.
    """

    running: tuple[Running, ...]
    outcomes: Mapping[str, Outcome]
    total: int
    seconds: float
    ended: tuple[Task, Outcome] | None = None
    began: Task | None = None


Watch: TypeAlias = Callable[[Progress], None]


@dataclass
class _Seen:
    """What a running task has shown so far."""

    process: TaskProcess
    log: Path
    tail: MetricsTail | None
    line: MetricsLine | None = None

    def look(self) -> Running:
        for line in self.tail.read() if self.tail else ():
            self.line = line
        seconds = time.monotonic() - self.process.began
        return Running(self.process.task, seconds, self.line, last_words(self.log))


@dataclass
class _State:
    """Tasks that wait, run and ended."""

    waiting: list[Task]
    running: dict[str, _Seen] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def work(tasks: Sequence[Task], folder: Path, jobs: int, watch: Watch) -> dict[str, Outcome]:
    """Does all tasks; returns how each ended, by its name.

    Args:
        tasks: tasks, in the order in which they are to begin.
        folder: folder of the sweep; the tasks' logs are in it.
        jobs: number of processes at a time, >= 1.
        watch: function called at each start and end of a task, and between them every quarter of a second.

    Raises:
        KeyboardInterrupt: as it came; the processes are gone then.
    """
    state, begun, total = _State(list(tasks)), time.monotonic(), len(tasks)
    threads, mark = max(1, cores() // jobs), secrets.token_hex(8)

    def show(ended: tuple[Task, Outcome] | None = None, began: Task | None = None) -> None:
        seen = tuple(one.look() for one in state.running.values())
        watch(Progress(seen, dict(state.outcomes), total, time.monotonic() - begun, ended, began))

    try:
        while state.waiting or state.running:
            for task in _ended(state):
                show(ended=(task, state.outcomes[task.name]))
            while len(state.running) < jobs and (ready := _next(state)) is not None:
                log = log_of(folder, ready.name)
                tail = MetricsTail(ready.run.folder) if ready.run is not None else None
                state.running[ready.name] = _Seen(TaskProcess(ready, log, threads, mark), log, tail)
                show(began=ready)
            if state.running:
                show()
                time.sleep(_LOOK_S)
    except BaseException:
        end_all([one.process for one in state.running.values()], mark)
        raise
    return state.outcomes


def _ended(state: _State) -> Iterator[Task]:
    """Moves tasks whose process has ended to the outcomes, one after the other, and those that can no longer begin."""
    for name, seen in list(state.running.items()):
        if seen.process.ended():
            del state.running[name]
            seconds = time.monotonic() - seen.process.began
            state.outcomes[name] = Outcome(seconds, seen.process.failure())
            yield seen.process.task
    for task in list(state.waiting):
        failed = [name for name in task.after if (one := state.outcomes.get(name)) and one.failure]
        if failed:
            state.waiting.remove(task)
            state.outcomes[task.name] = Outcome(0.0, f"{failed[0]}: {state.outcomes[failed[0]].failure}")
            yield task


def _next(state: _State) -> Task | None:
    """Takes the first task off the waiting ones that may begin; None where none may."""
    for task in state.waiting:
        if all(name in state.outcomes and state.outcomes[name].failure is None for name in task.after):
            state.waiting.remove(task)
            return task
    return None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_jobs(runs: int, threads: int, *, gpu: bool) -> int:
    """Number of processes at a time that suits this machine, >= 1: as many as cores and memory carry.

    Runs on a GPU go one at a time: they would share it, and its memory.

    Args:
        runs: number of runs to do.
        threads: largest `runtime.threads` of them; 0 counts as 1.
        gpu: whether one of them may use a GPU.
    """
    if gpu:
        import torch  # noqa: PLC0415 - slow to import

        if torch.cuda.is_available():
            return 1
    memory = int(psutil.virtual_memory().available // _MEMORY_OF_A_RUN)
    return max(1, min(cores() // max(1, threads), memory, runs))
