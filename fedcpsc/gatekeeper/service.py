# SPDX-License-Identifier: Apache-2.0
"""The gatekeeper as a process of the silo's own: one teacher, loaded once, behind a Unix-domain socket.

`POST /describe`, `POST /answer` and `POST /evaluate` take and give protocol messages as bytes (`codec.to_bytes`); `GET
/health` says that the process lives, and whether its teacher failed lately. Every reply is a message: what a caller did
wrong is a refusal code, never an HTTP error text.

Bounds: who may connect (the socket's file permissions), connections at a time, bytes in a request, seconds to send one
and to take the reply, queries waiting at a time, and one gatekeeper process for a ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import logging
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from fedcpsc.errors import LedgerError, ProtocolError, RefusalCode, Refused, SiloError, VersionError, explain
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.listening import bound_socket, bounded_protocol
from fedcpsc.gatekeeper.meter import Meter, Unmetered
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.gatekeeper.policy import ServicePolicy
from fedcpsc.ledger.ledger import LEDGER_FILE
from fedcpsc.logs import fields
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import (
    AnyQuery,
    DescribeRequest,
    EvaluationQuery,
    EvaluationTarget,
    Message,
    QueryTarget,
    Refusal,
)

__all__ = ["MEDIA_TYPE", "build_app", "serve"]

MEDIA_TYPE = "application/octet-stream"

log = logging.getLogger("fedcpsc.gatekeeper")

_HEADER_BYTES = 65_536
_CLASS_BYTES = 2**20  # of the numbers and names of a student's classes


def build_app(
    target: QueryTarget,
    limits: ServicePolicy,
    max_bytes: int,
    meter: Meter | None = None,
    outage: Outage | None = None,
    *,
    judge: EvaluationTarget | None = None,
    max_student_bytes: int = 0,
) -> FastAPI:
    """The web application around a gatekeeper.

    Args:
        target: answers.
        limits: queue length and seconds to read a request.
        max_bytes: largest size of a request's body, in bytes.
        meter: counter of every reply.
        outage: whether the teacher failed lately, for `GET /health`; None says that it did not.
        judge: judge of students; None where nobody may ask for that.
        max_student_bytes: largest size of the body of such a request, in bytes.
    """
    counted = meter or Unmetered()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    waiting = 0

    async def relayed(
        request: Request, wanted: type[Any] | UnionType, call: Callable[[Any], Message], most: int = max_bytes
    ) -> Response:
        nonlocal waiting
        begun = time.monotonic()
        if waiting >= limits.queue:  # before the body is read: a full queue holds no more memory
            return sent(Refusal(RefusalCode.BUSY), begun)
        waiting += 1
        try:
            message = _message(await _body(request, most, limits.read_timeout_s), wanted)
            return sent(await run_in_threadpool(call, message), begun)
        except Refused as refused:
            log.warning("refused a request unread", extra=fields(code=refused.code.value, note=str(refused)))
            return sent(Refusal(refused.code), begun)
        finally:
            waiting -= 1

    def sent(message: Message, begun: float) -> Response:
        counted.replied(message, time.monotonic() - begun)
        return Response(to_bytes(message), media_type=MEDIA_TYPE)

    @app.post("/describe")
    async def describe(request: Request) -> Response:
        return await relayed(request, DescribeRequest, target.describe)

    @app.post("/answer")
    async def answer(request: Request) -> Response:
        return await relayed(request, AnyQuery, target.answer)

    @app.post("/evaluate")
    async def evaluate(request: Request) -> Response:
        if judge is None:
            return sent(Refusal(RefusalCode.NO_EVALUATION), time.monotonic())
        return await relayed(request, EvaluationQuery, judge.evaluate, max_student_bytes)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": RefusalCode.OUT_OF_SERVICE.value if outage and outage.lasts else "ok"}

    return app


def serve(
    silo_dir: str | Path,
    socket_path: str | Path,
    *,
    group: str | None = None,
    metrics: str | None = None,
    metrics_group: str | None = None,
) -> None:
    """Runs a silo's gatekeeper until SIGTERM or SIGINT; queries under way are finished first.

    Before it listens, the teacher is tried on invented images, uncharged: one that fails never answers a query.

    Args:
        silo_dir: the silo's folder.
        socket_path: path of the socket to listen at; the file gets mode 0600, or 0660 with a group.
        group: group whose members may connect too.
        metrics: address at which Prometheus may read: loopback with a port, or the path of another socket; None: none.
        metrics_group: group whose members may connect to that socket too.

    Raises:
        SiloError: where the silo cannot be opened, its teacher fails its trial, another gatekeeper serves it, or the
            socket's path is taken.
        ConfigError: metrics would be open to other machines.
    """
    folder = Path(silo_dir)
    with contextlib.ExitStack() as opened:
        opened.enter_context(_only_one(folder))
        gatekeeper = opened.enter_context(contextlib.closing(open_gatekeeper(folder, tried=True)))
        meter: Meter = Unmetered()
        if metrics is not None:
            from fedcpsc.gatekeeper.metrics import PrometheusMeter, serving_metrics  # noqa: PLC0415 - where asked for

            meter = counting = PrometheusMeter(gatekeeper.answers_left)
            gatekeeper = dataclasses.replace(gatekeeper, meter=meter)
            opened.enter_context(serving_metrics(counting, metrics, metrics_group))
        listening = opened.enter_context(bound_socket(Path(socket_path), group))
        opened.enter_context(_stopped_by_signals())
        limits = gatekeeper.policy.service
        config = uvicorn.Config(
            _app_of(gatekeeper, meter),
            http=bounded_protocol(limits.read_timeout_s, max(limits.connections, limits.queue + 1)),
            ws="none",
            lifespan="off",
            log_config=None,  # its records go where ours go, see fedcpsc.logs
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=limits.grace_s,
        )
        log.info("the gatekeeper listens", extra=fields(silo=gatekeeper.silo, note=str(socket_path)))
        uvicorn.Server(config).run(sockets=[listening])
    log.info("the gatekeeper has stopped", extra=fields(silo=gatekeeper.silo))


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """uvicorn stops at SIGTERM and SIGINT, then raises the signal again: that must not skip our own cleaning up."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the silo's lock: a second gatekeeper process for the same ledger is an error, not a surprise.

    The lock's file goes with its holder, also where the gatekeeper did not start; one that was killed leaves it.
    """
    path = folder / f"{LEDGER_FILE}.lock"
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                raise BlockingIOError  # its holder removed it between the two lines: another may hold a new one
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise LedgerError(
            explain("ledger", str(folder / LEDGER_FILE), "is served by another gatekeeper", "stop that one first")
        ) from error
    except FileNotFoundError as error:
        raise SiloError(explain("silo_dir", str(folder), "does not exist", "check the path")) from error
    except OSError as error:
        remedy = "put the silo where the gatekeeper's user may write: it answers nothing that it cannot charge"
        raise SiloError(explain("silo_dir", str(folder), f"cannot be written ({error.strerror})", remedy)) from error


def _largest(gatekeeper: Gatekeeper) -> int:
    return gatekeeper.images_per_query * math.prod(gatekeeper.teacher.image_shape) + _HEADER_BYTES


def _app_of(gatekeeper: Gatekeeper, meter: Meter) -> FastAPI:
    """The web application around a silo's gatekeeper, within the policy's bounds."""
    judge = gatekeeper.judge
    return build_app(
        gatekeeper,
        gatekeeper.policy.service,
        _largest(gatekeeper),
        meter,
        gatekeeper.outage,
        judge=None if judge is None else gatekeeper,
        max_student_bytes=0 if judge is None else judge.section.max_bytes + _HEADER_BYTES + _CLASS_BYTES,
    )


async def _body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, bounded in bytes and seconds.

    Raises:
        Refused: too_many_images where it is too long, malformed where it is too slow or breaks off.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in _chunks(request):
                body += chunk
                if len(body) > max_bytes:
                    raise Refused(RefusalCode.TOO_MANY_IMAGES, f"a request of more than {max_bytes} bytes")
    except TimeoutError as error:
        raise Refused(RefusalCode.MALFORMED, f"a request that took more than {timeout_s} s") from error
    return bytes(body)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except Exception as error:  # the caller hung up
        raise Refused(RefusalCode.MALFORMED, f"half a request ({type(error).__name__})") from error


def _message(body: bytes, wanted: type[Any] | UnionType) -> Any:
    try:
        message = from_bytes(body)
    except VersionError as error:
        raise Refused(RefusalCode.VERSION, str(error)) from error
    except ProtocolError as error:  # what it says may quote the asker, who is not to write into the owner's log
        raise Refused(RefusalCode.MALFORMED, "not a message of this protocol") from error
    if not isinstance(message, wanted):
        raise Refused(RefusalCode.MALFORMED, f"a {type(message).__name__}")
    return message


def _sent(message: Message) -> Response:
    return Response(to_bytes(message), media_type=MEDIA_TYPE)
