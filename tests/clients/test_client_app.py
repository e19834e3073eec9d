# SPDX-License-Identifier: Apache-2.0
"""The relay under messages that are not the protocol's: a code comes back, nothing is touched, no text leaves."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from support.fakes import FakeSilo
from support.inproc_grid import FIRST_NODE, InProcGrid

import clients.app
from fedcpsc.errors import RefusalCode
from fedcpsc.logs import TextLines
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query, Refusal
from fedcpsc.protocol.records import from_records, refusal_code_of, to_records

QUERY = Query("c" * 32, AnswerForm.PROBABILITIES, np.zeros((2, 1, 8, 8), np.uint8))


@pytest.fixture
def silo(monkeypatch):
    gatekeeper = FakeSilo("north")
    monkeypatch.setattr(clients.app, "target_of", lambda node, run, app, group: gatekeeper)
    return gatekeeper


@pytest.fixture
def grid(silo):
    made = InProcGrid(clients.app.app, [{}])
    yield made
    made.close()


def send(grid, records, kind):
    (reply,) = grid.send_and_receive([Message(records, FIRST_NODE, kind)], timeout=10)
    return reply


def test_describe_and_answer_are_relayed(grid, silo):
    assert isinstance(from_records(send(grid, to_records(DescribeRequest()), "query.describe").content), Description)
    answer = from_records(send(grid, to_records(QUERY), "query.answer").content)
    assert isinstance(answer, Answer)
    assert answer.answers_left == silo.left == 9_998


@pytest.mark.parametrize(
    "kind", ["train", "evaluate", "query", "train.answer", "evaluate.describe", "query.other", "query.default"]
)
def test_every_other_action_gets_a_code_and_touches_nothing(grid, silo, kind):
    reply = send(grid, to_records(QUERY), kind)
    assert reply.has_error()
    assert refusal_code_of(reply.error) is RefusalCode.ACTION
    assert reply.error.reason == "action"
    assert silo.calls == 0


def test_a_train_message_with_weights_touches_nothing(grid, silo):
    weights = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(3))}), "config": ConfigRecord({"lr": 0.1})})
    assert refusal_code_of(send(grid, weights, "train").error) is RefusalCode.ACTION
    assert silo.calls == 0


malformed = {
    "nothing": RecordDict(),
    "metrics": RecordDict({"fedcpsc": MetricRecord({"message": 1})}),
    "no json": RecordDict({"fedcpsc": ConfigRecord({"message": "{"})}),
    "a list": RecordDict({"fedcpsc": ConfigRecord({"message": "[]"})}),
    "unknown kind": RecordDict({"fedcpsc": ConfigRecord({"message": json.dumps({"kind": "weights"})})}),
    "a reply": to_records(Refusal(RefusalCode.BUSY)),
}


@pytest.mark.parametrize("records", malformed.values(), ids=malformed)
@pytest.mark.parametrize("kind", ["query.describe", "query.answer"])
def test_malformed_messages_are_refused_unread(grid, silo, records, kind):
    assert from_records(send(grid, records, kind).content) == Refusal(RefusalCode.MALFORMED)
    assert silo.calls == 0


def test_each_action_takes_its_own_message_only(grid, silo):
    assert from_records(send(grid, to_records(QUERY), "query.describe").content).code is RefusalCode.MALFORMED
    assert from_records(send(grid, to_records(DescribeRequest()), "query.answer").content).code is RefusalCode.MALFORMED
    assert silo.calls == 0


def test_another_version_is_refused_as_such(grid, silo):
    reply = send(grid, to_records(DescribeRequest(version="7.1")), "query.describe")
    assert from_records(reply.content) == Refusal(RefusalCode.VERSION)
    assert silo.calls == 0


@pytest.mark.parametrize("kind", ["query.describe", "query.answer"])
def test_what_breaks_inside_leaves_as_a_code(grid, silo, kind, caplog):
    silo.fails = RuntimeError("/home/hospital/patients.csv row 4711")
    message = QUERY if kind == "query.answer" else DescribeRequest()
    reply = send(grid, to_records(message), kind)
    assert refusal_code_of(reply.error) is RefusalCode.INTERNAL
    assert reply.error.reason == "internal"
    assert "4711" not in "".join(map(TextLines().format, caplog.records))  # nor into the log, which others may read


def test_a_node_without_a_gatekeeper_says_so_to_its_owner_alone(grid, monkeypatch, caplog):
    monkeypatch.undo()
    reply = send(grid, to_records(DescribeRequest()), "query.describe")
    assert refusal_code_of(reply.error) is RefusalCode.INTERNAL
    assert any("gatekeeper-socket" in line for line in map(TextLines().format, caplog.records))
