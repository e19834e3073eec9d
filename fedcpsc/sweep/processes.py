# SPDX-License-Identifier: Apache-2.0
"""The process of a task seen from the sweep: started, looked at, ended with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import fedcpsc
from fedcpsc.launch.processes import end, marked
from fedcpsc.sweep.tasks import Task

__all__ = ["TaskProcess", "end_all", "last_words"]

_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_MARK: Final = "FEDCPSC_SWEEP"  # in the environment of every process of a sweep
_LAST_BYTES: Final = 4000


class TaskProcess:
    """One running task.

    A Ctrl-C reaches only the sweep, which ends its processes in order; when the sweep dies, however that happens, the
    pipe to the process closes, and the process ends itself.

    Args:
        task: what it does.
        log: file that takes what it prints, begun anew.
        threads: largest number of threads that its libraries begin with; `runtime.threads` of a run stands above it.
        mark: text that no other sweep has; all that the process starts is found by it.

    Attributes:
        task: what it does.
        began: moment of its start, in seconds of `time.monotonic`.
    """

    def __init__(self, task: Task, log: Path, threads: int, mark: str) -> None:
        self.task = task
        self.began = time.monotonic()
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fedcpsc.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**_environment(threads), _MARK: mark},
                start_new_session=True,
            )
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        with suppress(BrokenPipeError):  # it died: its log says why
            self._process.stdin.write(json.dumps(task.job).encode() + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended; `failure` then says how."""
        return self._process.poll() is not None

    def failure(self) -> str | None:
        """Reason why it failed, in words; None where it did what it was to do. Call it after the end."""
        code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if code == 0:
            return None
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = "; the machine may be out of memory: fewer --jobs" if -code == signal.SIGKILL else ""
            return f"its process was ended by {name}{why}"
        return last_words(self._log) or f"its process ended with exit code {code}"


def end_all(running: Sequence[TaskProcess], mark: str) -> None:
    """Ends a sweep's processes and what they started, and waits until they are gone.

    Args:
        running: processes that are known to run; one whose start was cut off by a signal may not be among them.
        mark: mark of the sweep, by which all of them are found.
    """
    end(marked(_MARK, mark))
    for one in running:
        one.failure()


def last_words(log: Path) -> str:
    """The last line of a log that says something; empty where none does.

    Args:
        log: file of the log, which may not be there yet.
    """
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _environment(threads: int) -> dict[str, str]:
    """Ours, with a bound on threads and this very package first on the path."""
    root = str(Path(fedcpsc.__file__).resolve().parents[1])
    installed = root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))  # found there in any case
    paths = [*(() if installed else (root,)), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    bounds = {}
    for name in _THREADS:
        given = os.environ.get(name, "")
        bounds[name] = str(min(threads, int(given))) if given.isdigit() and int(given) > 0 else str(threads)
    return {**os.environ, **bounds, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
