"""Long-lived processes as a crew: started, waited for, kept up, and taken down to the last descendant.

Keeping up is what systemd does with `Restart=on-failure`: one that dies is started again, after its own number of
seconds, and what it left running goes first.
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

__all__ = ["Crew", "Member", "Standing"]

MARK = "FEDCPSC_DEPLOYMENT"  # in the environment of every process of a deployment
_NAME = "FEDCPSC_MEMBER"  # in the environment of a member's processes
_LOOK_S = 0.2
_LAST_BYTES = 2000


@dataclass(frozen=True)
class Member:
    """One process.

    Attributes:
        name: name for people, unique.
        command: program and arguments.
        where: address or socket, for people.
        folder: working directory.
        environment: complete.
        log: takes its output.
        ready: whether it does its work now; called often, so it must be quick.
        rank: those of a lower rank are stopped first.
        stop_s: seconds it may take to stop when told to.
        restart_s: seconds between its death and its next start, where the crew is kept up.
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
class Standing:
    """How a member is now.

    Attributes:
        member: who.
        pid: number of its process.
        exit_code: None while it runs.
        ready: whether it does its work.
    """

    member: Member
    pid: int
    exit_code: int | None
    ready: bool


class Crew:
    """Starts members and takes them down.

    Args:
        mark: a text that no other crew has; every process of this one is found by it.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._running: dict[str, tuple[Member, subprocess.Popen[bytes]]] = {}

    def start(self, member: Member) -> None:
        """Starts it, in a session of its own: a Ctrl-C reaches only whoever takes the crew down in order."""
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

    def standings(self) -> list[Standing]:
        """Of all members, in the order of their start."""
        found = []
        for member, process in self._running.values():
            code = process.poll()
            found.append(Standing(member, process.pid, code, code is None and member.ready()))
        return found

    def wait_until(self, happened: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Waits, as long as every member lives.

        Args:
            happened: looked at again and again.
            what: is waited for, for people.
            timeout_s: longest wait, in seconds.

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
    def kept_up(self) -> Iterator[None]:
        """Inside the block, a member that dies (not one that ends with exit code 0) is started again."""
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep_up, args=(stop,), name="fedcpsc-crew", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()

    def _keep_up(self, stop: threading.Event) -> None:
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
