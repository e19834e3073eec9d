"""The deployment's chain in one process: Grid -> relay -> socket -> gatekeeper's service."""

import threading

import numpy as np
import pytest
import uvicorn
from support.fakes import FakeSilo, brightness_probabilities
from support.inproc_grid import InProcGrid

import clients.app
from clients import node
from fedcpsc.gatekeeper.listening import bound_socket
from fedcpsc.gatekeeper.policy import ServicePolicy
from fedcpsc.gatekeeper.service import build_app
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, decode_answers
from server.remote_teachers import GridTeachers


@pytest.fixture
def socket(tmp_path):
    """Path of a socket with a silo of ten answers behind it."""
    path = tmp_path / "s"
    app = build_app(FakeSilo("north", budget=10), ServicePolicy(), max_bytes=10**6)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="error", lifespan="off"))
    with bound_socket(path) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield str(path)
        server.should_exit = True
        thread.join()


def test_a_query_reaches_the_gatekeepers_process_and_its_answer_the_server(socket, monkeypatch):
    monkeypatch.setattr(node, "_targets", {})
    grid = InProcGrid(clients.app.app, [{"gatekeeper-socket": socket}])
    teachers = GridTeachers(grid, ttl_s=20)
    try:
        assert teachers.hello(1, 10)["north"].answers_left == 10
        images = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
        teachers.push({"north": Query("d" * 32, AnswerForm.PROBABILITIES, images)})
        (reply,) = teachers.poll(10)
        assert isinstance(reply.content, Answer)
        assert reply.content.answers_left == 8
        np.testing.assert_allclose(decode_answers(reply.content), brightness_probabilities(images), atol=0.01)
    finally:
        teachers.close()
        grid.close()
        for target in node._targets.values():
            target.close()
