# SPDX-License-Identifier: Apache-2.0
"""A SuperLink of one's own: loopback, simulation mode, a home in a temporary folder, gone without a trace on exit.

Every process of it inherits `FLWR_HOME`, which is unique to this SuperLink: that is how they are found and ended. Each
also inherits a secret, without which the SuperLink answers nobody (`guarded_superlink.py`): other users of the machine
reach its port, and could start runs, which are code.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from fedcpsc.errors import RunError, explain
from fedcpsc.launch.flower_commands import FlowerCommands
from fedcpsc.launch.processes import end, flower_environment, marked
from fedcpsc.runs.layout import SUPERLINK_LOG

__all__ = ["SuperLink", "temporary_folder"]

_NAME = "own"
_GUARDED = Path(__file__).with_name("guarded_superlink.py")
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
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # held from here on: nobody can take the port and the secret with it
        self._port = int(self._socket.getsockname()[1])
        self._proxy = f"http://fedcpsc:{secrets.token_hex(32)}@127.0.0.1:{self._port}"
        self._env = _environment(self.home, self._proxy)
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
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_NAME}"\n'
            f'[superlink.{_NAME}]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        descriptor = self._socket.fileno()
        command = [sys.executable, "-P", str(_GUARDED), str(descriptor)]
        command += ["--insecure", "--simulation", "--disable-runtime-dependency-installation"]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,  # Ray's workers look for modules in it first: nothing of the user's may lie there
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(descriptor,),
            )
        self._socket.close()
        deadline = time.monotonic() + _START_S
        address = f"127.0.0.1:{self._port}"
        while _health(self._port, self._proxy) != httpx.codes.OK:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunError(explain("SuperLink", address, "did not start", f"read {self._log}"))
            time.sleep(0.1)
        if _health(self._port) != httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
            remedy = "use --local, which needs none, and report this with the version of Flower"
            raise RunError(explain("SuperLink", address, "answers without its secret", remedy))

    def _stop(self) -> None:
        end(marked("FLWR_HOME", str(self.home)), _STOP_S)
        end(marked("FLWR_HOME", str(self.home)), 0.0)  # those that were started meanwhile
        self._socket.close()
        if self._process is not None:
            self._process.wait(_STOP_S)
        shutil.rmtree(self.home, ignore_errors=True)


def temporary_folder() -> str:
    """Where temporary folders with sockets in them are made: the usual place, unless its path is too long for them."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > _LONGEST_TEMPORARY and os.path.isdir("/tmp") else usual  # noqa: S108 - a base only


def _environment(home: Path, proxy: str) -> dict[str, str]:
    """Flower's, in which plain HTTP goes to the SuperLink by its secret; a proxy for HTTPS stays as it is."""
    usual = flower_environment(home)
    named = {name.lower(): value for name, value in usual.items() if name.lower().endswith("_proxy")}
    direct = [host.strip() for host in named["no_proxy"].split(",")]
    unused = {"http_proxy", "no_proxy"} | (set(named) if "*" in direct else set())
    no_proxy = ",".join(host for host in direct if host not in ("", "*", "127.0.0.1"))
    return {
        **{name: value for name, value in usual.items() if name.lower() not in unused},
        "HTTP_PROXY": proxy,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "no_grpc_proxy": "127.0.0.1,localhost",  # Ray's, which has its own ports of loopback
        "RAY_ADDRESS": "local",  # never someone else's cluster
        "RAY_TMPDIR": str(home),
        "RAY_AUTH_MODE": "token",  # Ray listens on every interface, and runs the code of whoever connects
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _health(port: int, proxy: str | None = None) -> int:
    """HTTP status of the SuperLink's page for this question, asked with or without its secret; 0 without an answer."""
    try:
        url = f"http://127.0.0.1:{port}/health"
        return httpx.get(url, timeout=1.0, trust_env=False, proxy=proxy).status_code
    except httpx.HTTPError:
        return 0
