# SPDX-License-Identifier: Apache-2.0
"""Where a process of the silo's own listens, and what a connection may cost it: seconds, and a place among the others.

uvicorn waits for ever for a request's headers and takes any number of connections; whoever may connect could fill the
process's table of open files. So a connection that sends no request in time is closed, and of too many the one that has
waited longest without a request under way makes room: whoever comes last is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fedcpsc.errors import ConfigError, SiloError, explain

__all__ = ["bound_address", "bound_socket", "bounded_protocol"]

_BACKLOG = 128
_HOST_AND_PORT = re.compile(r"\[?(?P<host>[^/\]]+)\]?:(?P<port>\d+)")


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
def bound_address(address: str, group: str | None = None) -> Iterator[socket.socket]:
    """A listening socket: TCP on a loopback address (`127.0.0.1:9464`, `[::1]:9464`), else a Unix-domain one.

    Raises:
        ConfigError: an address that is not loopback.
        SiloError: the port is taken, or as `bound_socket`.
    """
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        with bound_socket(Path(address), group) as listening:
            yield listening
        return
    host, port = found["host"], int(found["port"])
    try:
        inside = ipaddress.ip_address(host).is_loopback and port < 2**16
    except ValueError:
        inside = False
    if not inside:
        remedy = "use 127.0.0.1:9464 or the path of a socket, and a proxy with a login where others must see it"
        raise ConfigError(explain("address", address, "must be a port of a loopback address", remedy))
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SiloError(explain("address", address, f"is taken ({error.strerror})", "choose another port")) from error
    with listening:
        yield listening


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


def bounded_protocol(timeout_s: float, connections: int) -> type[H11Protocol]:
    """uvicorn's protocol with these bounds, counted over all connections of the class returned.

    Args:
        timeout_s: seconds in which the next request's headers must have come, and in which a caller must go on taking
            what is sent to it, > 0.
        connections: open at a time, >= 1; those with a request under way are never closed for another's sake, so let
            it be more than the requests that may wait.
    """
    without_request: dict[Any, None] = {}  # the longest waiting first
    answering: set[Any] = set()

    class Bounded(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _lost = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            while without_request and len(without_request) + len(answering) > connections:
                next(iter(without_request))._drop()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(timeout_s, self._drop)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._stuck)

        def connection_lost(self, exc: Exception | None) -> None:
            self._lost = True
            self._forget()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self._lost:
                return
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
                answering.add(self)
            elif self not in without_request:  # also while it is being closed: a caller that reads nothing delays that
                self._forget()
                without_request[self] = None
                self._late = self.loop.call_later(timeout_s, self._drop)

        def _drop(self) -> None:
            self._forget()
            self.transport.abort()  # close() would wait until the caller has read what was sent

        def _forget(self) -> None:
            without_request.pop(self, None)
            answering.discard(self)
            _cancel(self._late)
            if self._lost:
                _cancel(self._stuck)

    return Bounded


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
