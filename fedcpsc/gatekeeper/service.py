"""The gatekeeper as a process of the silo's own: one teacher, loaded once, behind a Unix-domain socket.

`POST /describe` and `POST /answer` take and give protocol messages as bytes (`codec.to_bytes`); `GET /health` says
that the process lives. Every reply is a message: what a caller did wrong is a refusal code, never an HTTP error text.

Bounds: who may connect (the socket's file permissions), bytes in a request, seconds to send one, queries waiting at a
time, and one gatekeeper process for a ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import logging
import math
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedcpsc.errors import LedgerError, ProtocolError, RefusalCode, Refused, SiloError, VersionError, explain
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper, open_gatekeeper
from fedcpsc.gatekeeper.ledger import LEDGER_FILE
from fedcpsc.gatekeeper.policy import ServicePolicy
from fedcpsc.logs import fields
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import DescribeRequest, Message, Query, QueryTarget, Refusal

__all__ = ["MEDIA_TYPE", "bound_socket", "build_app", "serve"]

MEDIA_TYPE = "application/octet-stream"

log = logging.getLogger("fedcpsc.gatekeeper")

_HEADER_BYTES = 65_536
_BACKLOG = 128


def build_app(target: QueryTarget, limits: ServicePolicy, max_bytes: int) -> FastAPI:
    """The web application around a gatekeeper.

    Args:
        target: answers.
        limits: queue length and seconds to read a request.
        max_bytes: of a request's body.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    waiting = 0

    async def relayed(request: Request, wanted: type[Any], call: Callable[[Any], Message]) -> Response:
        nonlocal waiting
        if waiting >= limits.queue:  # before the body is read: a full queue holds no more memory
            return _sent(Refusal(RefusalCode.BUSY))
        waiting += 1
        try:
            message = _message(await _body(request, max_bytes, limits.read_timeout_s), wanted)
            return _sent(await run_in_threadpool(call, message))
        except Refused as refused:
            log.warning("refused a request unread", extra=fields(code=refused.code.value, note=str(refused)))
            return _sent(Refusal(refused.code))
        finally:
            waiting -= 1

    @app.post("/describe")
    async def describe(request: Request) -> Response:
        return await relayed(request, DescribeRequest, target.describe)

    @app.post("/answer")
    async def answer(request: Request) -> Response:
        return await relayed(request, Query, target.answer)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def serve(silo_dir: str | Path, socket_path: str | Path, *, group: str | None = None) -> None:
    """Runs a silo's gatekeeper until SIGTERM or SIGINT; queries under way are finished first.

    Args:
        silo_dir: the silo's folder.
        socket_path: where to listen; the file gets mode 0600, or 0660 with a group.
        group: whose members may connect too.

    Raises:
        SiloError: where the silo cannot be opened, another gatekeeper serves it, or the socket's path is taken.
    """
    folder = Path(silo_dir)
    with (
        _only_one(folder),
        contextlib.closing(open_gatekeeper(folder)) as gatekeeper,
        bound_socket(Path(socket_path), group) as listening,
        _stopped_by_signals(),
    ):
        limits = gatekeeper.policy.service
        config = uvicorn.Config(
            build_app(gatekeeper, limits, _largest(gatekeeper)),
            http=_bounded_protocol(limits.read_timeout_s),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=limits.grace_s,
        )
        log.info("the gatekeeper listens", extra=fields(silo=gatekeeper.silo, note=str(socket_path)))
        uvicorn.Server(config).run(sockets=[listening])
    log.info("the gatekeeper has stopped", extra=fields(silo=gatekeeper.silo))


@contextlib.contextmanager
def bound_socket(path: Path, group: str | None = None) -> Iterator[socket.socket]:
    """A listening Unix-domain socket at `path`, removed afterwards. A dead one is replaced.

    Raises:
        SiloError: where the path is taken, too long, or cannot be made, or the group is unknown.
    """
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # never open to others, not even between bind and chmod
    try:
        listening.bind(str(path))
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
            path.chmod(0o660)
        listening.listen(_BACKLOG)
    except (OSError, KeyError) as error:
        listening.close()
        raise SiloError(
            explain("socket, group", (str(path), group), f"cannot be made ({error})", "check path, length and group")
        ) from error
    finally:
        os.umask(before)
    try:
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


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


def _clear(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise SiloError(explain("socket", str(path), "is a file that is no socket", "choose another path"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # left behind by a process that was killed
            path.unlink()
            return
        except OSError as error:
            raise SiloError(explain("socket", str(path), f"is taken ({error})", "choose another path")) from error
    raise SiloError(explain("socket", str(path), "is taken by a running process", "stop it, or choose another path"))


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the silo's lock: a second gatekeeper process for the same ledger is an error, not a surprise."""
    path = folder / f"{LEDGER_FILE}.lock"
    try:
        with open(path, "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise LedgerError(
            explain("ledger", str(folder / LEDGER_FILE), "is served by another gatekeeper", "stop that one first")
        ) from error
    except FileNotFoundError as error:
        raise SiloError(explain("silo_dir", str(folder), "does not exist", "check the path")) from error


def _largest(gatekeeper: Gatekeeper) -> int:
    return gatekeeper.policy.images_per_query * math.prod(gatekeeper.teacher.image_shape) + _HEADER_BYTES


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


def _message(body: bytes, wanted: type[Any]) -> Any:
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


def _bounded_protocol(timeout_s: float) -> type[H11Protocol]:
    """uvicorn's protocol, closing a connection whose request headers do not come in time (uvicorn itself waits)."""

    class Bounded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()

        def _watch(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering:
                self._unwatch()
            elif self._timer is None:
                self._timer = self.loop.call_later(timeout_s, self._late)

        def _unwatch(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Bounded
