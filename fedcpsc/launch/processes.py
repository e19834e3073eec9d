# SPDX-License-Identifier: Apache-2.0
"""Processes that Flower starts: their environment, and how all of them are found and ended, however detached.

Flower and Ray start helpers of their own, and a killed parent leaves them behind. Each inherits an environment variable
whose value nobody else has: that is how they are found. Some of Ray's processes overwrite their environment with their
title, so the children of those found count too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

__all__ = ["end", "flower_environment", "free_ports", "marked"]

_STOP_S = 5.0
_PATHS = ("FEDCPSC_DATA",)  # variables that mean another place in another working directory


def flower_environment(home: Path) -> dict[str, str]:
    """Ours, with a home for Flower, no telemetry, no proxy for loopback, and this Python's commands first on the path.

    Args:
        home: folder of Flower's settings and of the apps it receives (`FLWR_HOME`).
    """
    without_proxy = {
        name: ",".join([*filter(None, [os.environ.get(name)]), "127.0.0.1", "localhost"])
        for name in ("NO_PROXY", "no_proxy")
    }
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        **{name: str(Path(os.environ[name]).absolute()) for name in _PATHS if os.environ.get(name)},
        **without_proxy,
        "FEDCPSC_SOURCE": str(Path(__file__).resolve().parent),  # the apps run from copies, which have no commit
    }


def marked(name: str, value: str) -> set[psutil.Process]:
    """All processes with this environment variable, and their descendants."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(name) == value:
            with suppress(psutil.NoSuchProcess):
                found |= {process, *process.children(recursive=True)}
    return found


def end(processes: Iterable[psutil.Process], patience_s: float = _STOP_S) -> None:
    """Terminates them; kills those that are still there after `patience_s`."""
    ours = set(processes)
    for process in ours:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(ours, timeout=patience_s)
    for process in alive:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=_STOP_S)


def free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nothing listens now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _quietly(action: Callable[[], object]) -> None:
    with suppress(psutil.NoSuchProcess):
        action()
