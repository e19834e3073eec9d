"""A SuperLink of one's own: loopback, simulation mode, a home in a temporary folder, gone without a trace on exit.

Flower starts Ray and its own helpers as detached processes, and a killed parent leaves them behind. Every one of them
inherits `FLWR_HOME`, which is unique to this SuperLink: that is how they are found and ended. Some of Ray's processes
overwrite their environment with their title, so the children of those found count too.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from fedcpsc.errors import RunError, explain

__all__ = ["RunStatus", "SuperLink"]

_NAME = "own"
_START_S = 60.0
_STOP_S = 5.0
_COMMAND_S = 120.0
_PATHS = ("FEDCPSC_DATA",)  # variables that mean another place in another working directory
_LONGEST_TEMPORARY = 24  # Ray puts sockets below it, whose paths the system limits to some 100 characters


@dataclass(frozen=True)
class RunStatus:
    """How Flower says a run stands.

    Attributes:
        name: e.g. "running", "finished:completed", "finished:failed".
        details: Flower's reason, often empty.
    """

    name: str
    details: str

    @property
    def completed(self) -> bool:
        """Whether it finished as it should."""
        return self.name == "finished:completed"


class SuperLink:
    """Context manager. Inside it runs can be submitted; on leaving it no process of theirs is left.

    Args:
        run_dir: takes `superlink.log`, and from `follow` on `flower.log`: what the apps and Ray write. Both are
            appended to.
    """

    def __init__(self, run_dir: Path) -> None:
        self._log = run_dir / "superlink.log"
        self.app_log = run_dir / "flower.log"
        self.home = Path(tempfile.mkdtemp(prefix="fedcpsc-", dir=_temporary_folder()))
        self._env = _environment(self.home)
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

    def submit(self, app_folder: Path, run_config: Path, federation_config: str) -> str:
        """Starts a run of the app; returns Flower's run id.

        Args:
            app_folder: holds pyproject.toml; its name is letters, digits and hyphens.
            run_config: TOML file with values for `[tool.flwr.app.config]`.
            federation_config: as `flwr run --federation-config` takes it.

        Raises:
            RunError: Flower does not take it; with Flower's reason.
        """
        options = ["--run-config", str(run_config), "--federation-config", federation_config]
        return str(self._flwr("run", str(app_folder), _NAME, *options)["run-id"])

    def follow(self, run_id: str) -> subprocess.Popen[bytes]:
        """A process that copies the apps' log to `app_log`, and ends when the run does."""
        command = ["flwr", "log", run_id, _NAME, "--stream"]
        with self.app_log.open("ab") as log:
            return subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def status(self, run_id: str) -> RunStatus:
        """How the run stands now."""
        (run,) = self._flwr("ls", _NAME, "--run-id", run_id)["runs"]
        return RunStatus(str(run["status"]), str(run["status-details"]))

    def _start(self) -> None:
        port = _free_port()
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
        ours = self._processes()
        for process in ours:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(ours, timeout=_STOP_S)
        left = {*alive, *self._processes()}  # also those that were started meanwhile
        for process in left:
            _quietly(process.kill)
        psutil.wait_procs(left, timeout=_STOP_S)
        if self._process is not None:
            self._process.wait(_STOP_S)
        shutil.rmtree(self.home, ignore_errors=True)

    def _processes(self) -> set[psutil.Process]:
        found: set[psutil.Process] = set()
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("FLWR_HOME") == str(self.home):
                with suppress(psutil.NoSuchProcess):
                    found |= {process, *process.children(recursive=True)}
        return found

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        command = ["flwr", *arguments, "--format", "json"]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
        text = done.stdout[done.stdout.find("{") :]  # Flower may write notes before the JSON
        answer = json.loads(text) if text.startswith("{") else {}
        if done.returncode or answer.get("success") is False:
            reason = answer.get("error-message") or done.stderr.strip() or done.stdout.strip()
            raise RunError(explain(f"flwr {arguments[0]}", reason, "Flower refused", f"read {self._log}"))
        return dict(answer)


def _environment(home: Path) -> dict[str, str]:
    """Ours, with a private home for Flower and Ray, no telemetry, and this Python's commands first on the path."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        **{name: str(Path(os.environ[name]).absolute()) for name in _PATHS if os.environ.get(name)},
        **{name: ",".join([*filter(None, [os.environ.get(name)]), "127.0.0.1"]) for name in ("NO_PROXY", "no_proxy")},
        "FEDCPSC_SOURCE": str(Path(__file__).resolve().parent),  # the apps run from copies, which have no commit
        "RAY_ADDRESS": "local",  # never someone else's cluster
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _temporary_folder() -> str:
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > _LONGEST_TEMPORARY and os.path.isdir("/tmp") else usual  # noqa: S108 - a base only


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _quietly(action: Callable[[], object]) -> None:
    with suppress(psutil.NoSuchProcess):
        action()
