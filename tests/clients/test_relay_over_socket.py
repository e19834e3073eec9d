# SPDX-License-Identifier: Apache-2.0
"""The deployment's chain in one process: Grid -> relay -> socket -> gatekeeper's service."""

import dataclasses
from contextlib import ExitStack

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.inproc_grid import InProcGrid
from support.socket_silo import served

import clients.app
from clients import node
from fedcpsc.protocol.messages import PROTOCOL_VERSION, Answer, AnswerForm, Query, decode_answers
from server.flower_transport import FlowerTransport


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """Makes teachers of one silo, reached as in a deployment."""
    monkeypatch.setattr(node, "_targets", {})
    with ExitStack() as stack:

        def make(silo):
            path = stack.enter_context(served(silo, tmp_path / "s"))
            grid = InProcGrid(clients.app.app, [{"gatekeeper-socket": str(path)}])
            stack.callback(grid.close)
            transport = FlowerTransport(grid, ttl_s=20)
            stack.callback(transport.close)
            return transport

        yield make
        for target in node._targets.values():
            target.close()


def test_a_query_reaches_the_gatekeepers_process_and_its_answer_the_server(federation):
    transport = federation(FakeSilo("north", budget=10))
    assert transport.connect(1, 10)["north"].answers_left == 10
    images = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
    transport.send({"north": Query("d" * 32, AnswerForm.PROBABILITIES, images)})
    (reply,) = transport.receive(10)
    assert isinstance(reply.content, Answer)
    assert reply.content.answers_left == 8
    np.testing.assert_allclose(decode_answers(reply.content), brightness_probabilities(images), atol=0.01)


def of_version(version):
    """A silo whose gatekeeper speaks another version of the protocol."""
    silo = FakeSilo("north")
    silo.description = dataclasses.replace(silo.description, version=version)
    return silo


def test_a_gatekeeper_of_another_major_version_does_not_join_and_both_versions_are_named(federation, caplog):
    assert federation(of_version("2.3")).connect(1, 1.0) == {}
    told = [str(vars(record)) for record in caplog.records if record.msg == "a silo has not joined yet"]
    assert len(told) == 1
    assert f"version='2.3': this side speaks {PROTOCOL_VERSION}" in told[0].replace("\\", "")


def test_a_gatekeeper_of_a_newer_minor_version_joins(federation):
    newer = f"{PROTOCOL_VERSION.partition('.')[0]}.99"
    assert federation(of_version(newer)).connect(1, 10)["north"].version == newer
