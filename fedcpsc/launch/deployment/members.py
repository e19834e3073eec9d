# SPDX-License-Identifier: Apache-2.0
"""What each process of a deployment is started with: the command lines of the deployment page, filled in."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from pathlib import Path

import httpx

from fedcpsc.errors import RunError, explain
from fedcpsc.launch.deployment.certificates import AUTHORITY, SERVER, SERVER_KEY
from fedcpsc.launch.deployment.layout import Layout
from fedcpsc.launch.deployment.supervisor import Member
from fedcpsc.launch.processes import flower_environment
from fedcpsc.runs.layout import SUPERLINK_LOG

__all__ = [
    "CONNECTION",
    "NODE_KEY",
    "SECRET",
    "check_programs",
    "gatekeeper",
    "superexec",
    "superlink",
    "supernode",
]

CONNECTION = "deployment"
SECRET, NODE_KEY = "superexec.secret", "node"

_PROGRAMS = ("flwr", "flower-superlink", "flower-superexec", "flower-supernode")
_ANSWER_S = 2.0
_NODE_RESTART_S = 70.0  # sooner, the SuperLink takes it for a second one with the same key
# SuperNodes and SuperExec go first, so that nobody asks a gatekeeper that is gone, or a SuperLink that is
_FIRST, _SECOND, _LAST = range(3)


def check_programs() -> None:
    """Does nothing where Flower's programs can be found.

    Raises:
        RunError: naming one that is missing.
    """
    path = flower_environment(Path())["PATH"]
    for program in _PROGRAMS:
        if shutil.which(program, path=path) is None:
            raise RunError(explain("program", program, "is not installed", "install fedcpsc again"))


def superlink(layout: Layout, port: int) -> Member:
    """TLS, authenticated SuperNodes, tasks only for who knows the secret, state in a file.

    Args:
        layout: paths of the deployment.
        port: port on loopback to listen on.
    """
    command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"]
    command += ["--ssl-ca-certfile", AUTHORITY, "--ssl-certfile", SERVER, "--ssl-keyfile", SERVER_KEY]
    command += ["--isolation", "process", "--superexec-auth-secret-file", SECRET, "--database", "superlink.sqlite"]
    command += ["--disable-runtime-dependency-installation"]
    folder = layout.server
    url, trusted = f"https://127.0.0.1:{port}/health", folder / AUTHORITY

    def ready() -> bool:
        try:
            context = ssl.create_default_context(cafile=str(trusted))
            return httpx.get(url, verify=context, timeout=_ANSWER_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    environment = flower_environment(folder / "flwr")
    return Member("SuperLink", command, f"127.0.0.1:{port}", folder, environment, folder / SUPERLINK_LOG, ready, _LAST)


def superexec(layout: Layout, port: int) -> Member:
    """Starts the ServerApp of each run.

    Args:
        layout: paths of the deployment.
        port: port of the SuperLink.
    """
    command = ["flower-superexec", "--runtime-api-address", f"127.0.0.1:{port}"]
    command += ["--root-certificates", AUTHORITY, "--superexec-auth-secret-file", SECRET]
    folder = layout.server
    environment = flower_environment(folder / "flwr")
    return Member("SuperExec", command, "-", folder, environment, folder / "superexec.log", _as_long_as_it_runs, _FIRST)


def gatekeeper(layout: Layout, number: int, silo: Path, socket: Path) -> Member:
    """A silo's gatekeeper.

    Args:
        layout: paths of the deployment.
        number: number of the silo, from 0.
        silo: folder of the silo.
        socket: path of the socket to listen on.
    """
    command = [sys.executable, "-m", "fedcpsc.cli", "gatekeeper", "serve", str(silo), "--socket", str(socket)]
    folder = layout.silo(number)

    def ready() -> bool:
        if not socket.is_socket():
            return False
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=_ANSWER_S) as http:
                return http.get("http://gatekeeper/health").is_success
        except httpx.HTTPError:
            return False

    log, environment = folder / "gatekeeper.log", _one_core_each(folder)
    # queries under way are answered first
    return Member(f"gatekeeper {number}", command, str(socket), folder, environment, log, ready, _SECOND, stop_s=60.0)


def supernode(layout: Layout, number: int, port: int, own_port: int, socket: Path) -> Member:
    """A silo's SuperNode, which runs the relay.

    Args:
        layout: paths of the deployment.
        number: number of the silo, from 0.
        port: port of the SuperLink.
        own_port: port at which its own helpers reach it.
        socket: path of the gatekeeper's socket.
    """
    folder = layout.silo(number)
    command = ["flower-supernode", "--superlink", f"127.0.0.1:{port}"]
    command += ["--root-certificates", str(layout.server / AUTHORITY), "--auth-supernode-private-key", NODE_KEY]
    command += ["--host", "127.0.0.1", "--port", str(own_port), "--node-config", f'gatekeeper-socket="{socket}"']
    log, environment = folder / "supernode.log", _one_core_each(folder)
    where = f"127.0.0.1:{own_port}"
    return Member(
        f"SuperNode {number}",
        command,
        where,
        folder,
        environment,
        log,
        _as_long_as_it_runs,
        _FIRST,
        restart_s=_NODE_RESTART_S,
    )


def _one_core_each(folder: Path) -> dict[str, str]:
    """All silos share this machine, which in earnest has one: unless said otherwise, none takes every core."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **flower_environment(folder / "flwr")}


def _as_long_as_it_runs() -> bool:
    return True
