# SPDX-License-Identifier: Apache-2.0
"""A SuperLink of one's own: loopback, simulation mode, a home in a temporary folder, gone without a trace on exit.

Every process of it inherits `FLWR_HOME`, which is unique to this SuperLink: that is how they are found and ended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from fedcpsc.errors import RunError, explain
from fedcpsc.launch.flower_commands import FlowerCommands
from fedcpsc.launch.processes import end, flower_environment, free_ports, marked
from fedcpsc.runs.layout import SUPERLINK_LOG

__all__ = ["SuperLink", "temporary_folder"]

_NAME = "own"
_START_S = 60.0
_STOP_S = 5.0
_LONGEST_TEMPORARY = 24  # sockets lie below it (Ray's too), whose paths the system limits to some 100 characters


class SuperLink:
    """Context manager. Inside it runs can be submitted; on leaving it no process of theirs is left.

    Args:
        run_dir: folder of the run, which takes the SuperLink's log, appended to.

    Attributes:
        flower: commands to this SuperLink.
        home: folder of Flower's and Ray's files; removed on leaving.
    """

    def __init__(self, run_dir: Path) -> None:
        self._log = run_dir / SUPERLINK_LOG
        self.home = Path(tempfile.mkdtemp(prefix="fedcpsc-", dir=temporary_folder()))
        self._env = _environment(self.home)
        self.flower = FlowerCommands(_NAME, self._env, self._log)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        (port,) = free_ports(1)
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_NAME}"\n[superlink.{_NAME}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        command = ["flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,  # Ray's workers look for modules in it first: nothing of the user's may lie there
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not _healthy(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunError(explain("SuperLink", f"127.0.0.1:{port}", "did not start", f"read {self._log}"))
            time.sleep(0.1)

    def _stop(self) -> None:
        end(marked("FLWR_HOME", str(self.home)), _STOP_S)
        end(marked("FLWR_HOME", str(self.home)), 0.0)  # those that were started meanwhile
        if self._process is not None:
            self._process.wait(_STOP_S)
        shutil.rmtree(self.home, ignore_errors=True)


def temporary_folder() -> str:
    """Where temporary folders with sockets in them are made: the usual place, unless its path is too long for them."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > _LONGEST_TEMPORARY and os.path.isdir("/tmp") else usual  # noqa: S108 - a base only


def _environment(home: Path) -> dict[str, str]:
    return {
        **flower_environment(home),
        "RAY_ADDRESS": "local",  # never someone else's cluster
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
