# SPDX-License-Identifier: Apache-2.0
"""A whole federation on loopback, as on several machines: brought up in order, and taken down again without a trace."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.launch.deployment import members
from fedcpsc.launch.deployment.certificates import (
    AUTHORITY,
    make_authority,
    make_server_certificate,
    make_supernode_key,
)
from fedcpsc.launch.deployment.layout import Layout
from fedcpsc.launch.deployment.supervisor import MARK, Supervisor
from fedcpsc.launch.flower_commands import FlowerCommands
from fedcpsc.launch.processes import flower_environment, free_ports
from fedcpsc.launch.superlink import temporary_folder

__all__ = ["Federation", "check_start", "federation"]

_DAYS = 30
_START_S = 300.0
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Federation:
    """A federation that is up.

    Attributes:
        layout: paths of its files.
        supervisor: supervisor of its processes.
        flower: commands to its SuperLink.
        address: host:port of the SuperLink.
        sockets: sockets of the gatekeepers, by the silos' numbers.
    """

    layout: Layout
    supervisor: Supervisor
    flower: FlowerCommands
    address: str
    sockets: tuple[Path, ...]


@contextmanager
def federation(
    layout: Layout, silos: Sequence[Path], port: int | None = None, tell: Callable[[str], object] = lambda line: None
) -> Iterator[Federation]:
    """Brings up SuperLink, SuperExec, and for each silo a gatekeeper and a registered SuperNode.

    Args:
        layout: paths in a claimed folder.
        silos: the silos' folders, each with teacher, policy and ledger; an empty list brings up the server alone.
        port: port of the SuperLink; None takes a free one.
        tell: function called with a line that says what is being done.

    Raises:
        RunError: a port is taken, a program is missing, or a process does not come up. Nothing is left running then.
    """
    check_start(port)
    mark = secrets.token_hex(16)
    supervisor = Supervisor(mark)
    layout.note(mark)
    sockets = Path(tempfile.mkdtemp(prefix="fedcpsc-", dir=temporary_folder()))  # mode 0700
    try:
        yield _brought_up(layout, silos, port, supervisor, mark, sockets, tell)
    finally:
        supervisor.take_down()
        shutil.rmtree(sockets)


def _brought_up(
    layout: Layout,
    silos: Sequence[Path],
    wanted_port: int | None,
    supervisor: Supervisor,
    mark: str,
    sockets: Path,
    tell: Callable[[str], object],
) -> Federation:
    free = free_ports(1 + len(silos))
    port = wanted_port or free[0]
    tell("certificates and keys")
    _make_files(layout, len(silos), port)
    paths = tuple(sockets / f"silo-{number}.sock" for number in range(len(silos)))
    tell("SuperLink and gatekeepers")
    link = members.superlink(layout, port)
    supervisor.start(link)
    gatekeepers = [
        members.gatekeeper(layout, number, *pair) for number, pair in enumerate(zip(silos, paths, strict=True))
    ]
    for member in gatekeepers:
        supervisor.start(member)
    supervisor.wait_until(link.ready, "SuperLink", _START_S)
    supervisor.start(members.superexec(layout, port))
    environment = {**flower_environment(layout.server / "flwr"), MARK: mark}
    flower = FlowerCommands(members.CONNECTION, environment, link.log)
    for number in range(len(silos)):
        tell(f"registering SuperNode {number}")
        flower.register(layout.silo(number) / f"{members.NODE_KEY}.pub")
    supervisor.wait_until(lambda: all(member.ready() for member in gatekeepers), "gatekeepers", _START_S)
    for number, path in enumerate(paths):
        supervisor.start(members.supernode(layout, number, port, free[1 + number], path))
    tell("waiting for the SuperNodes")
    supervisor.wait_until(
        lambda: not silos or all(state == "online" for state in flower.nodes().values()), "SuperNodes online", _START_S
    )
    return Federation(layout, supervisor, flower, f"{_HOST}:{port}", paths)


def _make_files(layout: Layout, silos: int, port: int) -> None:
    server = layout.server
    (server / "flwr").mkdir(parents=True)
    make_authority(server, _DAYS)
    make_server_certificate(server, [_HOST], _DAYS)
    write_whole(server / members.SECRET, secrets.token_hex(32), private=True)
    text = [
        "[superlink]",
        f"default = {json.dumps(members.CONNECTION)}",
        f"[superlink.{members.CONNECTION}]",
        f'address = "{_HOST}:{port}"',
        f"root-certificates = {json.dumps(str(server / AUTHORITY))}",
    ]
    write_whole(server / "flwr" / "config.toml", "\n".join(text) + "\n")
    for number in range(silos):
        folder = layout.silo(number)
        (folder / "flwr").mkdir(parents=True)
        make_supernode_key(folder / members.NODE_KEY)


def check_start(port: int | None) -> None:
    """Does nothing where a federation could be brought up now.

    Args:
        port: port of the SuperLink, see `federation`.

    Raises:
        RunError: the port is taken, or a program is missing.
    """
    members.check_programs()
    if port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the SuperLink does: what is closing is free
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            remedy = "choose another --port, or none for a free one"
            raise RunError(explain("--port", port, f"cannot be had ({error.strerror})", remedy)) from error
