# SPDX-License-Identifier: Apache-2.0
"""Students are judged over the gatekeeper's socket as in its process, within bytes and places."""

import contextlib
import dataclasses
import threading
import time

import httpx
import numpy as np
import pytest
import uvicorn
from support.judged_students import COUNT, a_policy, judging, sent, truly_right

from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.listening import bound_socket, bounded_protocol
from fedcpsc.gatekeeper.meter import Unmetered
from fedcpsc.gatekeeper.metrics import PrometheusMeter
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.gatekeeper.service import _app_of
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import DescribeRequest, EvaluationAnswer, Refusal

EXACT = {"evaluations": 3, "public_size": True, "max_megabytes": 0.02}


@contextlib.contextmanager
def served(gatekeeper, path, meter=None):
    limits = gatekeeper.policy.service
    with bound_socket(path) as listening:
        http = bounded_protocol(limits.read_timeout_s, limits.connections)
        app = _app_of(gatekeeper, meter or Unmetered())
        server = uvicorn.Server(uvicorn.Config(app, http=http, ws="none", lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        client = SocketGatekeeper(path, timeout_s=20.0)
        try:
            while not server.started:
                time.sleep(0.005)
            yield client
        finally:
            client.close()
            server.should_exit = True
            thread.join()


def test_a_served_silo_judges_replays_and_refuses_as_one_in_its_process(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    meter = PrometheusMeter(gatekeeper.answers_left)
    with served(gatekeeper, tmp_path / "s", meter) as client:
        offer = client.describe(DescribeRequest()).evaluation
        assert (offer.total, offer.left, offer.held_out, offer.max_bytes) == (3, 3, COUNT, 20_000)
        first = client.evaluate(sent())
        assert (first.right, first.evaluations_left) == (truly_right(), 2)
        assert to_bytes(client.evaluate(sent())) == to_bytes(first)
        strange = sent(2, architecture="nothing")
        assert client.evaluate(strange) == Refusal(RefusalCode.STUDENT, strange.query_id)
        assert isinstance(client.evaluate(sent(3)), EvaluationAnswer)
        assert gatekeeper.ledger.status().queries == 2


def test_more_bytes_than_a_student_may_have_are_cut_off_unread(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    with served(gatekeeper, tmp_path / "s") as client:
        large = dataclasses.replace(sent(), weights=np.zeros(2_000_000, np.uint8))
        assert client.evaluate(large) == Refusal(RefusalCode.TOO_MANY_IMAGES, large.query_id)
        assert client.evaluate(sent()).right == truly_right()


@pytest.mark.parametrize("body", [b"", b"\x80\x04\x95 pickle", to_bytes(DescribeRequest())])
def test_what_is_no_such_message_is_malformed(tmp_path, body):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    way = httpx.HTTPTransport(uds=str(tmp_path / "s"))
    with served(gatekeeper, tmp_path / "s"), httpx.Client(transport=way, base_url="http://g") as http:
        reply = from_bytes(http.post("/evaluate", content=body).content)
    assert reply == Refusal(RefusalCode.MALFORMED)
    assert gatekeeper.ledger.status().events == 1


def test_a_silo_that_offers_none_refuses_over_the_socket_too(tmp_path):
    with served(judging(tmp_path, a_policy(None)), tmp_path / "s") as client:
        assert client.evaluate(sent()) == Refusal(RefusalCode.NO_EVALUATION, sent().query_id)
        assert client.describe(DescribeRequest()).evaluation is None
