# SPDX-License-Identifier: Apache-2.0
"""A ClientApp as whoever starts a run might send it: it takes what it can reach, and tells what became of each try.

Runs in place of `clients.app`, under the SuperNode's user: for one message of a test (`supernode_user.py`), or in a
bundle that `flwr run` sends (`tests/e2e/hostile_bundle`). `run_config` names the attacks and what the attacker knows:
the silo's folder and the gatekeeper's process id, which any user of the machine can find in /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import save

from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.protocol.codec import fields_of, from_bytes, to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query, Refusal

app = ClientApp()

RUN = "hostile"
GIGABYTE = 2**30
PTRACE_ATTACH = 16


@app.query("answer")
def attack(message: Message, context: Context) -> Message:
    known = context.run_config
    place = str(context.node_config["gatekeeper-socket"])
    report: dict[str, Any] = {}
    for name in str(known["attacks"]).split():
        report[name] = ATTACKS[name](Path(place), Path(str(known["silo"])), int(known["pid"]))
    return Message(RecordDict({"report": ConfigRecord({"json": json.dumps(report)})}), reply_to=message)


def steal(place: Path, silo: Path, pid: int) -> dict[str, str]:
    """Reads what the owner keeps."""
    tries: dict[str, Callable[[], object]] = {
        "list the folder": lambda: os.listdir(silo),
        "read the teacher": (silo / "teacher.safetensors").read_bytes,
        "read the manifest": (silo / "manifest.json").read_text,
        "read the policy": (silo / "policy.yaml").read_text,
        "read the ledger": lambda: sqlite3.connect(silo / "ledger.sqlite").execute("SELECT * FROM events").fetchall(),
        "open the silo": lambda: open_gatekeeper(silo).close(),
        "read its memory": lambda: Path(f"/proc/{pid}/mem").open("rb").close(),
        "read its environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
        "look at its files": lambda: os.listdir(f"/proc/{pid}/fd"),
        "go through its root": lambda: os.listdir(f"/proc/{pid}/root{silo}"),
    }
    return {name: outcome(action) for name, action in tries.items()}


def sabotage(place: Path, silo: Path, pid: int) -> dict[str, str]:
    """Changes or stops what the owner runs."""
    tries: dict[str, Callable[[], object]] = {
        "loosen the policy": lambda: (silo / "policy.yaml").write_text("answers: 1000000\n"),
        "rewrite the ledger": lambda: (silo / "ledger.sqlite").write_bytes(b""),
        "delete the ledger": (silo / "ledger.sqlite").unlink,
        "hold the ledger's lock": lambda: (silo / "ledger.sqlite.lock").open("w").close(),
        "kill the gatekeeper": lambda: os.kill(pid, signal.SIGKILL),
        "trace the gatekeeper": lambda: trace(pid),
        "remove the socket": place.unlink,
        "take the socket's place": lambda: place.rename(place.with_name("old")),
        "open the socket to all": lambda: place.chmod(0o777),
        "lay a link beside it": lambda: place.with_name("other").symlink_to("/etc/passwd"),
    }
    return {name: outcome(action) for name, action in tries.items()}


def ask(place: Path, silo: Path, pid: int) -> dict[str, Any]:
    """Asks beyond the policy, again, and under ids that are none."""
    with contextlib.closing(SocketGatekeeper(place)) as gatekeeper:
        first = query(place, 1)
        answer, again = gatekeeper.answer(first), gatekeeper.answer(first)
        wrong = {
            "too many images": query(place, 2, terms(place).images_per_query + 1),
            "another form": dataclasses.replace(query(place, 3), form=AnswerForm.LABEL),
            "another shape": dataclasses.replace(query(place, 4), images=np.zeros((2, 3, 8, 8), np.uint8)),
            "another version": dataclasses.replace(query(place, 5), version="9.0"),
            "other images under a used id": dataclasses.replace(first, images=query(place, 6).images),
            "a line for the log": dataclasses.replace(query(place, 7), run="x\nINFO all is well"),
            "a long principal": dataclasses.replace(query(place, 8), principal="p" * 201),
        }
        told = {name: shown(gatekeeper.answer(one)) for name, one in wrong.items()}
    same = isinstance(answer, Answer) and isinstance(again, Answer) and to_bytes(answer) == to_bytes(again)
    told |= {"first": shown(answer), "the same again is the same": same}
    for forged in ("../../../etc/passwd", "A" * 32, "0" * 31, "", "0" * 10_000, "' OR 1=1 --", "\0" * 32):
        scalars, arrays = fields_of(query(place, 9))
        body = save(arrays, metadata={"fedcpsc": json.dumps(scalars | {"query_id": forged})})
        told[f"id {forged[:8]!r}, {len(forged)} long"] = shown_bytes(post(place, body))
    return told


def malform(place: Path, silo: Path, pid: int) -> dict[str, int]:
    """Sends what is no message, no HTTP, or neither; how often came back what."""
    stream = random.Random(7)
    valid = to_bytes(query(place, 10))
    bodies = [b"", b"\xff" * 8, valid[:-1], valid[:40], valid.replace(b"U8", b"F64"), valid.replace(b"query", b"answe")]
    bodies += [(2**63).to_bytes(8, "little") + valid[8:], nested(), (1).to_bytes(8, "little") + b"{"]
    bodies += [stream.randbytes(stream.randrange(1, 4000)) for _ in range(100)]
    found = Counter(shown_bytes(post(place, body)) for body in bodies)
    head = b"POST /answer HTTP/1.1\r\nHost: g\r\n"
    frames = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + stream.randbytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
        b"GET /policy HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
        b"DELETE /answer HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        head + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
        head + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        stream.randbytes(100_000),
    ]
    for frame in frames:
        found[status(raw(place, frame))] += 1
    return dict(found)


def gigabyte(place: Path, silo: Path, pid: int) -> dict[str, Any]:
    """Sends a gigabyte as one request, told beforehand and not."""
    told: dict[str, Any] = {}
    for name, head in (("announced", b"Content-Length: %d" % GIGABYTE), ("endless", b"Transfer-Encoding: chunked")):
        with connected(place) as line:
            line.sendall(b"POST /answer HTTP/1.1\r\nHost: g\r\n" + head + b"\r\n\r\n")
            chunk, sent = b"x" * 2**20, 0
            framed = chunk if name == "announced" else b"100000\r\n" + chunk + b"\r\n"
            with contextlib.suppress(OSError):  # cut off, in time or by the end
                while sent < GIGABYTE:
                    line.sendall(framed)
                    sent += len(chunk)
            told[name] = status(received(line))
    return told


def flood(place: Path, silo: Path, pid: int) -> dict[str, Any]:
    """Connections without end, half requests, and then queries by many threads until nothing is left."""
    terms(place)  # before nobody gets in any more
    idle = []
    for number in range(400):
        with contextlib.suppress(OSError):
            idle.append(connected(place))
            idle[-1].sendall(b"POST /answer HTTP/1.1\r\nHost: g\r\nContent-Length: 5000\r\n\r\nxx"[: 20 + number % 60])
    found: Counter[str] = Counter()
    counting = threading.Lock()

    def work(thread: int) -> None:
        with contextlib.closing(SocketGatekeeper(place, timeout_s=30.0)) as gatekeeper:
            for number in range(20):
                asked = query(place, 1000 * (thread + 1) + number, 10)
                gatekeeper.describe(DescribeRequest())
                reply = gatekeeper.answer(asked)
                with counting:
                    found[shown(reply)] += 1
                if isinstance(reply, Refusal) and reply.code == "busy":
                    time.sleep(0.1)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for line in idle:
        line.close()
    rest = 0  # what the flood left of the budget, image by image
    with contextlib.closing(SocketGatekeeper(place)) as gatekeeper:
        while (last := shown(gatekeeper.answer(query(place, 90_000 + rest, 1)))) in ("Answer", "busy"):
            rest += last == "Answer"
            time.sleep(0.1 * (last == "busy"))
    return {"connections": len(idle), "rest": rest, "last": last, **found}


ATTACKS: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {
    "steal": steal,
    "sabotage": sabotage,
    "ask": ask,
    "malform": malform,
    "gigabyte": gigabyte,
    "flood": flood,
}


def outcome(action: Callable[[], object]) -> str:
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "DONE"


def trace(pid: int) -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(PTRACE_ATTACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


@functools.cache
def terms(place: Path) -> Description:
    """What the gatekeeper tells whoever asks."""
    with contextlib.closing(SocketGatekeeper(place)) as gatekeeper:
        told = gatekeeper.describe(DescribeRequest())
    assert isinstance(told, Description)
    return told


def query(place: Path, number: int, count: int = 2) -> Query:
    shape = (count, *terms(place).image_shape)
    images = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    return Query(f"{number:032x}", AnswerForm.PROBABILITIES, images, run=RUN)


def nested() -> bytes:
    header = b'{"__metadata__":{"fedcpsc":' + b"[" * 60_000
    return len(header).to_bytes(8, "little") + header


def shown(reply: object) -> str:
    return str(reply.code) if isinstance(reply, Refusal) else type(reply).__name__


def shown_bytes(body: bytes) -> str:
    return shown(from_bytes(body)) if body else "nothing"


def status(reply: bytes) -> str:
    """The refusal in an HTTP reply, or where it holds no message its status."""
    head, _, body = reply.partition(b"\r\n\r\n")
    return shown_bytes(body) if b"octet-stream" in head else head[9:12].decode("ascii") or "nothing"


def post(place: Path, body: bytes) -> bytes:
    head = b"POST /answer HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    return raw(place, head + body).partition(b"\r\n\r\n")[2]


def raw(place: Path, sent: bytes) -> bytes:
    with connected(place) as line:
        with contextlib.suppress(OSError):
            line.sendall(sent)
        return received(line)


def connected(place: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(10.0)
    line.connect(str(place))
    return line


def received(line: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(OSError):
        while chunk := line.recv(65_536):
            found += chunk
    return found
