# SPDX-License-Identifier: Apache-2.0
"""Supervises long-lived processes: starts them, waits for them, starts them again, takes them down with descendants.

Starting again is what systemd does with `Restart=on-failure`: a process that dies is started again after its own number
of seconds, and what it left running is ended first.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedcpsc.errors import RunError, explain
from fedcpsc.launch.processes import end, marked

__all__ = ["Member", "ProcessStatus", "Supervisor"]

MARK = "FEDCPSC_DEPLOYMENT"  # in the environment of every process of a deployment
_NAME = "FEDCPSC_MEMBER"  # in the environment of a member's processes
_LOOK_S = 0.2
_LAST_BYTES = 2000


@dataclass(frozen=True)
class Member:
    """How one process of a deployment is started and stopped.

    Attributes:
        name: name shown to people, unique.
        command: program and arguments.
        where: address or socket shown to people.
        folder: working directory.
        environment: all environment variables of the process.
        log: file that takes its output, appended to.
        ready: function that says whether the process does its work now; called often, so it must be quick.
        rank: number of its turn to be stopped: lower ranks are stopped first.
        stop_s: longest time to stop after SIGTERM, in seconds, > 0; then it is killed.
        restart_s: time between its death and its next start, in seconds, >= 0.
    """

    name: str
    command: Sequence[str]
    where: str
    folder: Path
    environment: dict[str, str]
    log: Path
    ready: Callable[[], bool]
    rank: int
    stop_s: float = 10.0
    restart_s: float = 5.0


@dataclass(frozen=True)
class ProcessStatus:
    """State of a member's process now.

    Attributes:
        member: the member.
        pid: number of its process.
        exit_code: exit code of the process; None while it runs.
        ready: whether it does its work now.
    """

    member: Member
    pid: int
    exit_code: int | None
    ready: bool


class Supervisor:
    """Starts members, starts them again when they die, and takes them down.

    Args:
        mark: text that no other supervisor has; every process of this one is found by it.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._running: dict[str, tuple[Member, subprocess.Popen[bytes]]] = {}

    def start(self, member: Member) -> None:
        """Starts it, in a session of its own: a Ctrl-C reaches only whoever takes all members down in order."""
        with member.log.open("ab") as log:
            process = subprocess.Popen(
                list(member.command),
                cwd=member.folder,
                env={**member.environment, MARK: self._mark, _NAME: self._name(member)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[member.name] = (member, process)

    def statuses(self) -> list[ProcessStatus]:
        """The status of every member, in the order of their start."""
        found = []
        for member, process in self._running.values():
            code = process.poll()
            found.append(ProcessStatus(member, process.pid, code, code is None and member.ready()))
        return found

    def wait_until(self, happened: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Waits, as long as every member lives.

        Args:
            happened: function that says whether it has happened; called again and again.
            what: name of what is waited for, shown to people.
            timeout_s: longest wait, in seconds, > 0.

        Raises:
            RunError: a member has ended, or the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while not happened():
            for member, process in self._running.values():
                if (code := process.poll()) is not None:
                    reason = f"ended with exit code {code} ({_last_words(member.log)})"
                    raise RunError(explain(member.name, member.where, reason, f"read {member.log}"))
            if time.monotonic() > deadline:
                raise RunError(explain(what, f"{timeout_s:g} s", "did not happen in time", "read the logs beside it"))
            time.sleep(_LOOK_S)

    @contextmanager
    def supervise(self) -> Iterator[None]:
        """Inside the block, a member that dies (not one that ends with exit code 0) is started again."""
        stop = threading.Event()
        watcher = threading.Thread(target=self._restart_dead, args=(stop,), name="fedcpsc-supervisor", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def _restart_dead(self, stop: threading.Event) -> None:
        died: dict[int, float] = {}  # by process id
        while not stop.wait(_LOOK_S):
            for member, process in list(self._running.values()):
                if not process.poll():
                    continue
                if process.pid not in died:
                    died[process.pid] = time.monotonic()
                    end(marked(_NAME, self._name(member)), 0.0)
                elif time.monotonic() - died[process.pid] >= member.restart_s:
                    self.start(member)

    def _name(self, member: Member) -> str:
        return f"{self._mark} {member.name}"

    def take_down(self) -> None:
        """Stops all members, rank by rank, then whatever descends from them. Signals meanwhile do not cut it short."""
        with _undisturbed():
            for rank in sorted({member.rank for member, _ in self._running.values()}):
                peers = [(member, process) for member, process in self._running.values() if member.rank == rank]
                living = []
                for _, process in peers:
                    with suppress(psutil.NoSuchProcess):
                        living.append(psutil.Process(process.pid))
                end(living, max(member.stop_s for member, _ in peers))
                for _, process in peers:
                    process.wait()
            end(marked(MARK, self._mark))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without SIGINT and SIGTERM; only a program's main thread gets them, and may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_words(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")
