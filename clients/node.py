# SPDX-License-Identifier: Apache-2.0
"""A node's own configuration -> whatever answers queries there.

`node_config` belongs to the silo: `gatekeeper-socket` names the socket of its gatekeeper's process (the deployment:
this process then imports no torch and loads no model), `silo-dir` the silo's folder, opened in this process. Only where
a node has neither, but a partition, it is taken for a simulated one: the run names the folder of all silos, and each
message the number of the one that is to answer (`server/seats.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcpsc.app_config import AppConfig
from fedcpsc.errors import ConfigError, explain
from fedcpsc.protocol.messages import QueryTarget

__all__ = ["target_of"]

_SOCKET, _SILO_DIR, _PARTITION, _PARTITIONS = "gatekeeper-socket", "silo-dir", "partition-id", "num-partitions"

# Ray's actors live as long as the run and serve any node: one target a silo, kept by what it is opened from
_targets: dict[tuple[str, str], QueryTarget] = {}
_opening = threading.Lock()


def target_of(
    node_config: Mapping[str, Any], run_config: Mapping[str, Any], app_folder: Path, group: str = ""
) -> QueryTarget:
    """The silo's gatekeeper, or the client of one; the same object each time.

    Args:
        node_config: the node's own settings.
        run_config: Flower's settings of the run.
        app_folder: folder of this app.
        group: number of the silo that the message is for; heeded by simulated nodes alone, which without one serve the
            silo of their partition.

    Raises:
        FedcpscError: the node is not set up, or its silo cannot be opened. For the owner's log only.
    """
    kind, place = _place(node_config, run_config, app_folder, group)
    with _opening:
        if (kind, place) not in _targets:
            _targets[kind, place] = _open(kind, place)
        return _targets[kind, place]


def _place(
    node_config: Mapping[str, Any], run_config: Mapping[str, Any], app_folder: Path, group: str
) -> tuple[str, str]:
    for kind in (_SOCKET, _SILO_DIR):
        if kind in node_config:
            return kind, str(node_config[kind])
    if set(node_config) != {_PARTITION, _PARTITIONS}:
        remedy = f"start the node with --node-config '{_SOCKET}=\"...\"'"
        raise ConfigError(explain("node_config", sorted(node_config), f"must name {_SOCKET} or {_SILO_DIR}", remedy))
    number = int(group or node_config[_PARTITION])  # a number, so that no message names another folder
    return _SILO_DIR, str(AppConfig.of(run_config).silos_folder(app_folder) / str(number))


def _open(kind: str, place: str) -> QueryTarget:
    # imported where needed: the relay of a deployment starts anew for every message and must stay light
    if kind == _SOCKET:
        from fedcpsc.gatekeeper.remote import SocketGatekeeper  # noqa: PLC0415

        return SocketGatekeeper(place)
    from fedcpsc.gatekeeper.opening import open_gatekeeper  # noqa: PLC0415

    return open_gatekeeper(place)
