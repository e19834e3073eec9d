# SPDX-License-Identifier: Apache-2.0
"""What only the Grid can do to a run: nodes that stay away, errors, lost and foreign replies."""

import time

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from support.fakes import FakeSilo
from support.inproc_grid import InProcGrid

import clients.app
import server.flower_transport
from fedcpsc.distillation.transport import Lost, Unreadable
from fedcpsc.errors import FederationError, ProtocolError, RefusalCode
from fedcpsc.logs import TextLines
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, Refusal
from fedcpsc.protocol.records import to_records
from server.flower_transport import FlowerTransport

QUERY = Query("a" * 32, AnswerForm.PROBABILITIES, np.zeros((2, 1, 8, 8), np.uint8))


class Federation:
    """Fake silos behind the real ClientApp; `reply` takes the place of its answers."""

    def __init__(self, monkeypatch, count=2):
        self.gatekeepers = [FakeSilo(f"silo-{i}") for i in range(count)]
        self.reply = None
        monkeypatch.setattr(clients.app, "target_of", lambda node, run, app, group: self.gatekeepers[node["which"]])
        monkeypatch.setattr(server.flower_transport, "_RETRY_S", 0.1)
        self.grid = InProcGrid(self._serve, [{"which": i} for i in range(count)])
        self.transport = FlowerTransport(self.grid, ttl_s=10)

    def _serve(self, message, context):
        if self.reply is not None and message.metadata.message_type == "query.answer":
            return self.reply(message)
        return clients.app.app(message, context)

    def ask(self):
        """The content of the one reply to QUERY from silo-0."""
        self.transport.connect(len(self.gatekeepers), 5)
        self.transport.send({"silo-0": QUERY})
        for _ in range(100):
            if replies := self.transport.receive(0.1):
                assert len(replies) == 1
                return replies[0].content
        raise AssertionError("no reply")


@pytest.fixture
def federation(monkeypatch):
    made = Federation(monkeypatch)
    yield made
    made.transport.close()
    made.grid.close()


def test_hello_waits_no_longer_than_its_timeout_and_tells_who_came(federation):
    federation.grid.joined = 1
    begun = time.monotonic()
    assert set(federation.transport.connect(2, 0.5)) == {"silo-0"}
    assert 0.4 < time.monotonic() - begun < 3


def test_hello_with_nobody_there_is_empty(federation):
    federation.grid.joined = 0
    assert federation.transport.connect(2, 0.2) == {}


def test_a_second_hello_finds_who_came_late(federation):
    federation.grid.joined = 1
    federation.transport.connect(2, 0.2)
    federation.grid.joined = 2
    assert set(federation.transport.connect(2, 5)) == {"silo-0", "silo-1"}


def test_a_silo_that_was_not_ready_is_asked_again(federation):
    gatekeeper = federation.gatekeepers[1]
    gatekeeper.fails = RuntimeError("starting")
    assert set(federation.transport.connect(2, 0.4)) == {"silo-0"}
    assert gatekeeper.calls > 1
    gatekeeper.fails = None
    assert set(federation.transport.connect(2, 5)) == {"silo-0", "silo-1"}


def test_a_silo_of_another_version_is_not_asked_again(federation):
    gatekeeper = federation.gatekeepers[1]
    calls = []
    gatekeeper.describe = lambda request: calls.append(request) or Refusal(RefusalCode.VERSION)
    assert set(federation.transport.connect(2, 0.6)) == {"silo-0"}
    assert len(calls) == 1


def test_a_failure_inside_a_silo_arrives_as_a_code_without_its_text(federation, caplog):
    federation.transport.connect(2, 5)
    federation.gatekeepers[0].fails = RuntimeError("patient 4711")
    content = federation.ask()
    assert content == Refusal(RefusalCode.INTERNAL, QUERY.query_id)
    assert "4711" not in "".join(map(TextLines().format, caplog.records))


@pytest.mark.parametrize("number", [0, 2, 3, 5, 8])
def test_an_error_of_flower_itself_is_a_lost_query(federation, number):
    federation.reply = lambda message: Message(Error(number, "secret"), reply_to=message)
    content = federation.ask()
    assert content == Lost(QUERY.query_id, f"Flower error {number}")


def test_an_answer_to_another_question_is_not_taken(federation):
    other = Answer("b" * 32, AnswerForm.PROBABILITIES, 3, np.zeros((2, 3), np.uint8), 5)
    federation.reply = lambda message: Message(to_records(other), reply_to=message)
    assert federation.ask() == Lost(QUERY.query_id, "reply to another question")


def test_a_reply_that_is_no_answer_is_not_taken(federation):
    federation.reply = lambda message: Message(to_records(QUERY), reply_to=message)
    assert federation.ask() == Lost(QUERY.query_id, "reply to another question")


def test_a_reply_that_is_not_of_the_protocol_cannot_be_read_and_says_so(federation):
    records = RecordDict({"fedcpsc": ConfigRecord({"message": "{}"})})
    federation.reply = lambda message: Message(records, reply_to=message)
    content = federation.ask()
    assert isinstance(content, Unreadable)
    assert "protocol" in content.reason


def test_an_answer_of_nan_cannot_be_read(federation):
    answer = Answer(QUERY.query_id, AnswerForm.PROBABILITIES, 3, np.zeros((2, 3), np.float32), 5)
    answer.values[:] = np.nan
    federation.reply = lambda message: Message(to_records(answer), reply_to=message)
    content = federation.ask()
    assert isinstance(content, Unreadable)
    assert "NaN or infinity" in content.reason


def test_a_reply_that_never_comes_is_lost_after_its_time(federation, monkeypatch):
    federation.transport.connect(2, 5)
    federation.transport._ttl_s = 0.2
    monkeypatch.setattr(server.flower_transport, "_GRACE_S", 0.1)
    monkeypatch.setattr(federation.grid, "pull_messages", lambda ids: [])
    content = federation.ask()
    assert content == Lost(QUERY.query_id, "no reply within 0.2 s")


def test_every_query_carries_its_time_to_live_and_the_action_answer(federation):
    federation.ask()
    assert {message.metadata.message_type for message in federation.grid.sent} == {"query.describe", "query.answer"}
    assert {message.metadata.ttl for message in federation.grid.sent} == {10}


@pytest.mark.parametrize("refused", [[], [None]])
def test_a_query_the_superlink_does_not_take_is_lost(federation, monkeypatch, refused):
    federation.transport.connect(2, 5)
    monkeypatch.setattr(federation.grid, "push_messages", lambda messages: refused)
    assert federation.ask() == Lost(QUERY.query_id, "could not be sent")


def test_a_transport_error_while_sending_is_a_lost_query(federation, monkeypatch):
    federation.transport.connect(2, 5)

    def broken(messages):
        raise OSError("no route")

    monkeypatch.setattr(federation.grid, "push_messages", broken)
    assert federation.ask() == Lost(QUERY.query_id, "could not be sent")


def test_a_transport_error_while_pulling_is_waited_out(federation, monkeypatch):
    federation.transport.connect(2, 5)
    real, failures = federation.grid.pull_messages, iter([OSError("later")] * 3)

    def flaky(ids):
        for failure in failures:
            raise failure
        return real(ids)

    monkeypatch.setattr(federation.grid, "pull_messages", flaky)
    assert isinstance(federation.ask(), Answer)


def test_a_silo_that_has_not_joined_cannot_be_asked(federation):
    federation.transport.connect(2, 5)
    with pytest.raises(ProtocolError, match="silo-9"):
        federation.transport.send({"silo-9": QUERY})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_connection_is_an_error_not_a_wait_for_ever(federation, monkeypatch):
    federation.transport.connect(2, 5)

    def fatal(*args):
        raise SystemError

    monkeypatch.setattr(federation.transport, "_arrived", fatal)
    with pytest.raises(FederationError, match="resume"):
        federation.ask()
