# SPDX-License-Identifier: Apache-2.0
"""The silos of a simulation are those of the configuration, however many nodes Flower's settings give it."""

import pytest
from support.fakes import FakeSilo
from support.inproc_grid import InProcGrid

import clients.app
from clients import node
from server.flower_transport import FlowerTransport
from server.seats import Seat, seats_of


@pytest.mark.parametrize(
    ("nodes", "silos", "seats"),
    [
        ([7, 5], 3, [Seat(5, "0"), Seat(7, "1"), Seat(5, "2")]),
        ([5, 6, 7, 8], 3, [Seat(5, "0"), Seat(6, "1"), Seat(7, "2")]),
        ([], 3, []),
        ([7, 5], None, [Seat(7, ""), Seat(5, "")]),
    ],
)
def test_silos_share_the_nodes_of_a_simulation_evenly_and_have_one_each_in_a_deployment(nodes, silos, seats):
    assert seats_of(nodes, silos) == seats


@pytest.mark.parametrize("nodes", [1, 2, 3, 10])
def test_every_silo_of_the_configuration_joins_once_by_whichever_node(monkeypatch, tmp_path, nodes):
    silos = {str(tmp_path / str(number)): FakeSilo(f"silo-{number}") for number in range(3)}
    monkeypatch.setattr(node, "_targets", {})
    monkeypatch.setattr(node, "_open", lambda kind, place: silos[place])
    own = [{"partition-id": number, "num-partitions": nodes} for number in range(nodes)]
    grid = InProcGrid(clients.app.app, own, {"silos": str(tmp_path)})
    transport = FlowerTransport(grid, ttl_s=10, simulated=3)
    try:
        assert set(transport.connect(3, 5)) == {"silo-0", "silo-1", "silo-2"}
        assert transport.turned_away == {}
        assert [silo.calls for silo in silos.values()] == [1, 1, 1]
    finally:
        transport.close()
        grid.close()


def test_a_silo_that_cannot_be_opened_is_named_with_its_node(monkeypatch, tmp_path):
    def opened(kind, place):
        if place.endswith("2"):
            raise OSError("no such teacher")
        return FakeSilo(f"silo-{place[-1]}")

    monkeypatch.setattr(node, "_targets", {})
    monkeypatch.setattr(node, "_open", opened)
    own = [{"partition-id": number, "num-partitions": 2} for number in range(2)]
    grid = InProcGrid(clients.app.app, own, {"silos": str(tmp_path)})
    transport = FlowerTransport(grid, ttl_s=10, simulated=3)
    try:
        assert set(transport.connect(3, 0.5)) == {"silo-0", "silo-1"}
        assert [name.partition(" on ")[0] for name in transport.turned_away] == ["silo 2"]
    finally:
        transport.close()
        grid.close()
