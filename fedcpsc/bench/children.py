# SPDX-License-Identifier: Apache-2.0
"""The measuring process seen from outside: started over one side's source tree, spoken to in JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedcpsc.bench.results import CallTimes, CurveEnding, Memory, Ready
from fedcpsc.bench.sides import Side, unmeasurable

__all__ = ["Child"]

_SCRIPT = Path(__file__).with_name("probe.py")


class Child:
    """Context manager: one process of one side, with one job.

    Args:
        side: side whose code and configuration are measured.
        job: job as `probe.py` takes it, without the configuration.
    """

    def __init__(self, side: Side, job: Mapping[str, object]) -> None:
        self._side = side
        self._noise = tempfile.TemporaryFile("w+")  # noqa: SIM115 - stderr, shown where the process dies without a reply
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],  # -P: the script's own folder is not searched for modules
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            env={**os.environ, "PYTHONPATH": str(side.root)},
        )
        self._send({"config": str(side.config), "set": list(side.overrides), **job})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._noise):
            if stream is not None:
                stream.close()

    def ready(self) -> Ready:
        """The reply when the stage is set up.

        Raises:
            RunError: the process failed, or is gone.
        """
        said: Ready = self._read()
        return said

    def ending(self) -> CurveEnding:
        """The reply at the end of a whole run.

        Raises:
            RunError: the run failed.
        """
        said: CurveEnding = self._read()
        return said

    def _read(self) -> Any:
        """The next reply.

        Raises:
            RunError: the process failed, or is gone.
        """
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = self._process.stdout.readline()
        if not line:
            self._noise.seek(0)
            last = (self._noise.read().strip().splitlines() or [f"exit code {self._process.wait()}"])[-1]
            raise unmeasurable(self._side, last)
        reply = json.loads(line)
        if "error" in reply:
            raise unmeasurable(self._side, reply["error"])
        return reply

    def go(self) -> CallTimes:
        """One timed call."""
        self._send({"go": True})
        times: CallTimes = self._read()
        return times

    def finish(self) -> Memory:
        """No more calls: the memory that the process took."""
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.close()
        memory: Memory = self._read()
        return memory

    def _send(self, message: Mapping[str, object]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the next reply says why
