# SPDX-License-Identifier: Apache-2.0
"""The contract over a real socket, and what only a socket can suffer."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from query_target import Make, MeanTeacher, QueryTargetContract, open_silo, query

from fedcpsc.errors import RefusalCode, SiloError
from fedcpsc.gatekeeper.listening import bound_socket, bounded_protocol
from fedcpsc.gatekeeper.policy import ServicePolicy
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.gatekeeper.service import build_app
from fedcpsc.protocol.codec import from_bytes
from fedcpsc.protocol.messages import Answer, QueryTarget, Refusal

MAX_BYTES = 20_000


@contextlib.contextmanager
def served(target: QueryTarget, path: Path, limits: ServicePolicy) -> Iterator[SocketGatekeeper]:
    """`target` behind a socket in a thread of this process, so that tests can watch it."""
    with bound_socket(path) as listening:
        config = uvicorn.Config(
            build_app(target, limits, MAX_BYTES),
            http=bounded_protocol(limits.read_timeout_s, limits.connections),
            ws="none",
            lifespan="off",
            log_level="error",
        )
        server = uvicorn.Server(config)
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


class TestOverASocket(QueryTargetContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Make]:
        with contextlib.ExitStack() as stack:

            def opened(**policy: Any) -> tuple[SocketGatekeeper, MeanTeacher]:
                gatekeeper, teacher = open_silo(tmp_path, **policy)
                return stack.enter_context(served(gatekeeper, tmp_path / "s", gatekeeper.policy.service)), teacher

            yield opened


LIMITS = ServicePolicy(queue=3, read_timeout_s=0.4)


def raw(path: Path, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Sends bytes as they are, reads until the other side closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(5.0)
        line.connect(str(path))
        for part in parts:
            line.sendall(part)
            time.sleep(pause_s)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := line.recv(65_536):
                received += chunk
        return received


def test_slow_half_and_oversized_requests_are_bounded_and_charge_nothing(tmp_path: Path) -> None:
    gatekeeper, teacher = open_silo(tmp_path)
    path = tmp_path / "s"
    head = b"POST /answer HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with served(gatekeeper, path, LIMITS) as client:
        started = time.monotonic()
        assert raw(path, b"POST /ans") == b""  # half a header
        assert raw(path) == b""  # nothing at all
        slow = raw(path, head % 5000, b"x" * 10)  # half a body
        assert from_bytes(slow.split(b"\r\n\r\n", 1)[1]) == Refusal(RefusalCode.MALFORMED)
        assert time.monotonic() - started < 4.0
        large = raw(path, head % (MAX_BYTES + 1), b"x" * (MAX_BYTES + 1))
        assert from_bytes(large.split(b"\r\n\r\n", 1)[1]) == Refusal(RefusalCode.TOO_MANY_IMAGES)
        chunked = b"POST /answer HTTP/1.1\r\nHost: g\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        endless = raw(path, chunked, *[b"2000\r\n" + b"x" * 0x2000 + b"\r\n"] * 3)
        assert from_bytes(endless.split(b"\r\n\r\n", 1)[1]) == Refusal(RefusalCode.TOO_MANY_IMAGES)
        assert b"404" in raw(path, b"GET /policy.yaml HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        assert b'{"status":"ok"}' in raw(path, b"GET /health HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        assert teacher.images == 0
        assert isinstance(client.answer(query()), Answer)  # and it lives
    assert gatekeeper.ledger.status().queries == 1


def connected(path: Path, *parts: bytes) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(5.0)
    line.connect(str(path))
    for part in parts:
        line.sendall(part)
    return line


def closed(line: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return line.recv(1) == b""
    return True


def test_of_too_many_connections_the_longest_idle_make_room(tmp_path: Path) -> None:
    gatekeeper, _ = open_silo(tmp_path)
    limits = ServicePolicy(queue=3, connections=5, read_timeout_s=20.0)
    with served(gatekeeper, tmp_path / "s", limits) as client, contextlib.ExitStack() as held:
        idle = [held.enter_context(connected(tmp_path / "s", b"POST /ans")) for _ in range(9)]
        assert isinstance(client.answer(query()), Answer)  # and is the tenth
        assert [closed(line) for line in idle[:5]] == [True] * 5
        idle[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            idle[-1].recv(1)


def keep_asking(line: socket.socket) -> None:
    for _ in range(10_000):
        line.sendall(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n" * 1000)


def test_who_does_not_read_what_was_asked_for_is_cut_off(tmp_path: Path) -> None:
    gatekeeper, _ = open_silo(tmp_path)
    with served(gatekeeper, tmp_path / "s", LIMITS) as client, connected(tmp_path / "s") as line:
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):  # until nobody takes any more
            keep_asking(line)
        line.settimeout(5.0)
        with pytest.raises(ConnectionError):
            keep_asking(line)
        assert isinstance(client.answer(query()), Answer)


def test_a_full_queue_is_busy_and_the_same_query_may_come_again(tmp_path: Path) -> None:
    gatekeeper, teacher = open_silo(tmp_path)
    gate, predict = threading.Event(), teacher.predict
    teacher.predict = lambda images: predict(images) if gate.wait(10) else None  # type: ignore[method-assign,assignment,return-value]
    asked = [query(1) for _ in range(6)]
    with served(gatekeeper, tmp_path / "s", LIMITS) as client, ThreadPoolExecutor(6) as pool:
        replies = [pool.submit(client.answer, one) for one in asked]
        while sum(reply.done() for reply in replies) < 3:  # three wait inside, three were sent away
            time.sleep(0.01)
        gate.set()
        codes = [reply.result().code for reply in replies if isinstance(reply.result(), Refusal)]
        assert codes == [RefusalCode.BUSY] * 3
        again = [client.answer(one) for one in asked]
    assert all(isinstance(reply, Answer) for reply in again)
    assert gatekeeper.ledger.verify().spent.answers == 6


def test_the_socket_is_the_owners_alone_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    group = __import__("grp").getgrgid(os.getgid()).gr_name
    with bound_socket(path, group):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_taken_path_is_told_and_a_dead_socket_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(SiloError, match="is a file that is no socket"), bound_socket(path):
        pass
    assert path.read_text() == "precious"
    path.unlink()
    with bound_socket(path), pytest.raises(SiloError, match="taken by a running process"), bound_socket(path):
        pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with bound_socket(path):
        pass
    with pytest.raises(SiloError, match="cannot be made"), bound_socket(tmp_path / ("x" * 200)):
        pass
    with pytest.raises(SiloError, match="cannot be made"), bound_socket(path, "no such group"):
        pass


def test_a_gatekeeper_that_is_not_there_is_a_code(tmp_path: Path) -> None:
    client = SocketGatekeeper(tmp_path / "nobody")
    asked = query()
    assert client.answer(asked) == Refusal(RefusalCode.INTERNAL, asked.query_id)


def test_the_relays_side_imports_neither_torch_nor_the_model() -> None:
    code = "import sys, fedcpsc.gatekeeper.remote; print([m for m in ('torch', 'flwr', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
