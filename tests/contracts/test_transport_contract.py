# SPDX-License-Identifier: Apache-2.0
"""What every implementation of `SiloTransport` does, run over local gatekeepers and over Flower's Grid."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.inproc_grid import InProcGrid

import clients.app
from fedcpsc.distillation.transport import LocalTransport, Reply, SiloTransport
from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, Refusal, decode_answers
from server.flower_transport import FlowerTransport


@dataclass
class Federation:
    gatekeepers: list[FakeSilo]
    transport: SiloTransport


@pytest.fixture(params=["local", "grid"])
def federation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    gatekeepers = [FakeSilo("north"), FakeSilo("south"), FakeSilo("east", budget=5)]
    if request.param == "local":
        transport: SiloTransport = LocalTransport(gatekeepers)
        yield Federation(gatekeepers, transport)
        transport.close()
        return
    monkeypatch.setattr(clients.app, "target_of", lambda node, run, app, group: gatekeepers[node["which"]])
    grid = InProcGrid(clients.app.app, [{"which": i} for i in range(3)])
    transport = FlowerTransport(grid, ttl_s=20)
    yield Federation(gatekeepers, transport)
    transport.close()
    grid.close()


def query(identity: int, count: int = 2, level: int = 0) -> Query:
    return Query(f"{identity:032x}", AnswerForm.PROBABILITIES, np.full((count, 1, 8, 8), level, np.uint8), run="test")


def collect(transport: SiloTransport, count: int) -> dict[str, Reply]:
    replies: list[Reply] = []
    deadline = time.monotonic() + 10
    while len(replies) < count and time.monotonic() < deadline:
        replies += transport.receive(0.5)
    assert len(replies) == count
    return {reply.silo: reply for reply in replies}


def test_hello_finds_every_silo_with_its_description(federation):
    found = federation.transport.connect(3, 5)
    assert set(found) == {"north", "south", "east"}
    assert found["east"].answers_left == 5
    assert found["north"].silo == "north"


def test_hello_again_tells_the_same_and_sends_no_query(federation):
    first = federation.transport.connect(3, 5)
    assert federation.transport.connect(3, 5) == first
    assert [gatekeeper.left for gatekeeper in federation.gatekeepers] == [10_000, 10_000, 5]


def test_of_two_silos_of_one_name_the_first_has_it_and_the_second_is_turned_away_and_told_of(federation):
    federation.gatekeepers[1].description = replace(federation.gatekeepers[1].description, silo="north")
    assert set(federation.transport.connect(3, 1)) == {"north", "east"}
    ((node, why),) = federation.transport.turned_away.items()
    assert node.startswith("node ")
    assert "'north'" in why
    assert "joined by this name before" in why
    federation.transport.send({"north": query(1)})
    assert isinstance(collect(federation.transport, 1)["north"].content, Answer)
    assert [len(gatekeeper.queries) for gatekeeper in federation.gatekeepers] == [1, 0, 0]


def test_every_push_yields_exactly_one_reply_from_the_silo_it_went_to(federation):
    federation.transport.connect(3, 5)
    queries = {"north": query(1, level=20), "south": query(2, level=128), "east": query(3, level=230)}
    federation.transport.send(queries)
    replies = collect(federation.transport, 3)
    for silo, reply in replies.items():
        assert isinstance(reply.content, Answer)
        assert reply.content.query_id == queries[silo].query_id
        assert reply.seconds >= 0
        expected = brightness_probabilities(queries[silo].images)
        np.testing.assert_allclose(decode_answers(reply.content), expected, atol=0.01)
    assert federation.transport.receive(0.1) == []


def test_rounds_follow_each_other(federation):
    federation.transport.connect(3, 5)
    for identity in range(5):
        federation.transport.send({"north": query(identity)})
        reply = collect(federation.transport, 1)["north"]
        assert reply.content.query_id == f"{identity:032x}"


def test_several_queries_at_one_silo_are_answered_in_their_order(federation):
    federation.transport.connect(3, 5)
    for identity in range(3):
        federation.transport.send({"north": query(identity)})
    replies, deadline = [], time.monotonic() + 10
    while len(replies) < 3 and time.monotonic() < deadline:
        replies += federation.transport.receive(0.5)
    assert [reply.content.query_id for reply in replies] == [f"{identity:032x}" for identity in range(3)]


def test_a_refusal_is_a_code_with_the_query_it_refuses(federation):
    federation.transport.connect(3, 5)
    federation.transport.send({"east": query(7, count=6)})
    refusal = collect(federation.transport, 1)["east"].content
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.query_id) == (RefusalCode.BUDGET, f"{7:032x}")


def test_the_same_query_may_be_sent_again_and_is_charged_once(federation):
    federation.transport.connect(3, 5)
    answers = []
    for _ in range(2):
        federation.transport.send({"east": query(9, count=4)})
        answers.append(collect(federation.transport, 1)["east"].content)
    np.testing.assert_array_equal(answers[0].values, answers[1].values)
    assert federation.gatekeepers[2].left == 1


def test_poll_with_nothing_in_flight_waits_as_long_as_it_may(federation):
    federation.transport.connect(3, 5)
    begun = time.monotonic()
    assert federation.transport.receive(0.2) == []
    assert 0.2 <= time.monotonic() - begun < 2
    assert federation.transport.receive(0) == []


def test_traffic_counts_the_pixels_sent_and_the_answers_received(federation):
    federation.transport.connect(3, 5)
    before = federation.transport.traffic
    sent, received = before.bytes_sent, before.bytes_received
    federation.transport.send({"north": query(1, count=50)})
    collect(federation.transport, 1)
    assert 50 * 64 <= federation.transport.traffic.bytes_sent - sent <= 50 * 64 + 1000
    assert 50 * 3 <= federation.transport.traffic.bytes_received - received <= 50 * 3 + 1000
