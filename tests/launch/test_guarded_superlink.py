# SPDX-License-Identifier: Apache-2.0
"""A SuperLink of one's own answers to its secret alone, and Flower's processes send it whatever the user's settings."""

import asyncio
import base64
import os

import httpx._utils as httpx_utils
import pytest

from fedcpsc.launch.guarded_superlink import Guarded
from fedcpsc.launch.superlink import _environment

PROXY = "http://fedcpsc:s3cret@127.0.0.1:4711"
RIGHT = b"Basic " + base64.b64encode(b"fedcpsc:s3cret")
HOST = (b"host", b"127.0.0.1:4711")


def answer(headers, path="/v1/control/start-run", kind="http"):
    """What the guard sends, and what reached the application behind it."""
    sent, reached = [], []

    async def app(scope, receive, send):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(Guarded(app, PROXY)({"type": kind, "headers": headers, "path": path}, receive, send))
    return sent, reached


@pytest.mark.parametrize("path", ["/v1/control/list-runs", "http://127.0.0.1:4711/v1/control/list-runs"])
def test_a_request_with_the_secret_passes_without_it(path):
    sent, (scope,) = answer([HOST, (b"proxy-authorization", RIGHT), (b"accept", b"a/b")], path)
    assert sent == []
    assert scope["path"] == "/v1/control/list-runs"
    assert scope["headers"] == [HOST, (b"accept", b"a/b")]


@pytest.mark.parametrize(
    "given",
    [
        [],
        [(b"proxy-authorization", b"")],
        [(b"proxy-authorization", RIGHT[:-1])],
        [(b"proxy-authorization", RIGHT.lower())],
        [(b"proxy-authorization", b"Basic " + base64.b64encode(b"fedcpsc:"))],
        [(b"authorization", RIGHT)],
        [(b"proxy-authorization", RIGHT), (b"proxy-authorization", b"Basic x")],
    ],
)
def test_any_other_is_refused(given):
    sent, reached = answer([HOST, *given])
    assert sent[0]["status"] == 407
    assert reached == []


def test_what_was_meant_for_another_host_goes_nowhere():
    sent, reached = answer([(b"host", b"example.org"), (b"proxy-authorization", RIGHT)], "http://example.org/")
    assert sent[0]["status"] == 403
    assert reached == []


def test_websockets_are_closed_and_the_start_of_the_server_passes():
    sent, reached = answer([HOST, (b"proxy-authorization", RIGHT)], kind="websocket")
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert reached == []
    assert len(answer([], kind="lifespan")[1]) == 1


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:4711", "http://fedcpsc@127.0.0.1:4711", "http://a:b@host"])
def test_a_guard_without_a_secret_does_not_start(proxy):
    with pytest.raises(ValueError, match="HTTP_PROXY"):
        Guarded(lambda *given: None, proxy)


def test_ray_asks_for_a_token_of_its_own(tmp_path):
    """Flower's simulation starts Ray, whose ports are open to all who reach the machine."""
    first, second = (_environment(tmp_path, PROXY) for _ in range(2))
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("usual", ["", "*", "127.0.0.1", ".corp, 127.0.0.1,localhost"])
def test_no_setting_of_the_users_leads_flowers_requests_past_the_secret(tmp_path, monkeypatch, usual):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.corp:3128")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, usual)
    environment = _environment(tmp_path, PROXY)
    monkeypatch.setattr(os, "environ", environment)
    found = httpx_utils.get_environment_proxies()
    assert found["http://"] == PROXY
    assert not any("127.0.0.1" in pattern for pattern in found)
    assert found.get("all://") == (None if "*" in usual else "http://proxy.corp:3128")
