# SPDX-License-Identifier: Apache-2.0
"""The command `flwr` as calls: submit a run, follow it, ask how it stands; register SuperNodes and list them.

`flwr run --stream` exits 0 even when the run failed, so a run is submitted, followed, and then asked about.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcpsc.errors import RunError, explain

__all__ = ["FlowerCommands", "RunStatus"]

_COMMAND_S = 120.0


@dataclass(frozen=True)
class RunStatus:
    """How Flower says a run stands.

    Attributes:
        name: status, e.g. "running", "finished:completed", "finished:failed".
        details: Flower's reason, often empty.
    """

    name: str
    details: str

    @property
    def completed(self) -> bool:
        """Whether it finished as it should."""
        return self.name == "finished:completed"


@dataclass(frozen=True)
class FlowerCommands:
    """One SuperLink, by the name of its connection.

    Attributes:
        connection: name in `$FLWR_HOME/config.toml`.
        environment: environment variables of the commands, FLWR_HOME among them.
        log: log of the SuperLink, to which errors point.
    """

    connection: str
    environment: Mapping[str, str]
    log: Path

    def submit(self, app_folder: Path, run_config: Path, federation_config: str | None = None) -> str:
        """Starts a run of the app; returns Flower's run id.

        Args:
            app_folder: folder that holds pyproject.toml; its name consists of letters, digits and hyphens.
            run_config: TOML file with values for `[tool.flwr.app.config]`.
            federation_config: text for `flwr run --federation-config`; None in a deployment.

        Raises:
            RunError: Flower does not take it; with Flower's reason.
        """
        options = ["--run-config", str(run_config)]
        options += ["--federation-config", federation_config] if federation_config else []
        return str(self._flwr("run", str(app_folder), self.connection, *options)["run-id"])

    def follow(self, run_id: str, log: Path) -> subprocess.Popen[bytes]:
        """A process that appends the ServerApp's log to `log`, and ends when the run does."""
        command = ["flwr", "log", run_id, self.connection, "--stream"]
        with log.open("ab") as file:
            return subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)

    def status(self, run_id: str) -> RunStatus:
        """How the run stands now."""
        (run,) = self._flwr("ls", self.connection, "--run-id", run_id)["runs"]
        return RunStatus(str(run["status"]), str(run["status-details"]))

    def register(self, public_key: Path) -> str:
        """Admits the SuperNode with this key (OpenSSH, NIST curve); returns its node id.

        Raises:
            RunError: the key is no such key, or registered already.
        """
        return str(self._flwr("supernode", "register", str(public_key), self.connection)["node-id"])

    def nodes(self) -> dict[str, str]:
        """Registered SuperNodes by node id: "registered", "online" or "offline"."""
        listed = self._flwr("supernode", "list", self.connection)["nodes"]
        return {str(node["node-id"]): str(node["status"]) for node in listed}

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        command = ["flwr", *arguments, "--format", "json"]
        try:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            reason = f"no reply within {_COMMAND_S:g} s"
            raise RunError(explain(f"flwr {arguments[0]}", reason, "must answer", f"read {self.log}")) from error
        text = done.stdout[done.stdout.find("{") :]  # Flower may write notes before the JSON
        answer = json.loads(text) if text.startswith("{") else {}
        if done.returncode or answer.get("success") is False:
            reason = answer.get("error-message") or done.stderr.strip() or done.stdout.strip()
            raise RunError(explain(f"flwr {arguments[0]}", reason, "Flower refused", f"read {self.log}"))
        return dict(answer)
