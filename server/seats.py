# SPDX-License-Identifier: Apache-2.0
"""Where silos sit: one on each node of a deployment; in a simulation the silos share the nodes that there are.

How many nodes a simulation has stands in Flower's own settings, beside the project: two, where nobody changed them.
How many silos there are is the experiment, and stands in the run's configuration. So a simulated node serves whichever
silo a message names, by its `group_id`; a node of a deployment has its silo in its own settings, and heeds no name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Seat", "seats_of"]


class Seat(NamedTuple):
    """An address of one silo.

    Attributes:
        node: Flower's id of the node.
        silo: number of the silo that the node is to serve, as text; empty in a deployment.
    """

    node: int
    silo: str

    def __str__(self) -> str:
        return f"silo {self.silo} on node {self.node}" if self.silo else f"node {self.node}"


def seats_of(nodes: Iterable[int], simulated: int | None) -> list[Seat]:
    """The seats at some nodes.

    Args:
        nodes: ids of the nodes that are there.
        simulated: number of silos of a simulation, >= 1, which share the nodes evenly; None in a deployment.
    """
    if simulated is None:
        return [Seat(node, "") for node in nodes]
    there = sorted(nodes)
    return [Seat(there[number % len(there)], str(number)) for number in range(simulated)] if there else []
