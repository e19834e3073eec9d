# SPDX-License-Identifier: Apache-2.0
"""Flower's SuperLink behind a secret: `python -P guarded_superlink.py SOCKET [options of flower-superlink]`.

Flower's open edition has no login, so whoever reaches a SuperLink's port starts runs on it, and a port of loopback is
reached by every user of the machine. Here the server answers only to requests that carry a secret, and the secret
travels by what Flower's clients do anyway: they are HTTP clients that heed HTTP_PROXY. That variable names this very
server, with a user and a password, and so every request of theirs carries them as `Proxy-Authorization`; the
environment of a process is readable by its user alone, unlike its arguments. Nothing of Flower's is replaced but the
way its server is started, and `superlink.py` looks whether that held.

This file is run by its path and imports nothing of fedcpsc: where that is found must not change for Flower's processes.
"""

from __future__ import annotations

import base64
import hmac
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

import uvicorn

__all__ = ["Guarded"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Guarded:
    """An ASGI application that passes on what carries the secret and was meant for this server; the rest is refused.

    Args:
        app: application to guard.
        proxy: this server as an HTTP proxy, `http://user:secret@host:port`.
    """

    def __init__(self, app: _App, proxy: str) -> None:
        url = urlsplit(proxy)
        if not url.username or not url.password or not url.hostname or not url.port:
            raise ValueError("HTTP_PROXY names no user, password, host and port")
        self._app = app
        self._wanted = b"Basic " + base64.b64encode(f"{url.username}:{url.password}".encode())
        self._host = f"{url.hostname}:{url.port}".encode()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """As ASGI has it: 407 without the secret, 403 for another host's page, websockets are closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = [value for name, value in headers if name == b"proxy-authorization"]
        hosts = [value for name, value in headers if name == b"host"]
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif len(given) != 1 or not hmac.compare_digest(given[0], self._wanted):
            await _refuse(send, 407, b"this SuperLink belongs to a run of another user: it takes no requests\n")
        elif hosts != [self._host]:
            await _refuse(send, 403, b"a simulation reaches no other host by plain HTTP\n")
        else:
            kept = [(name, value) for name, value in headers if name != b"proxy-authorization"]
            await self._app({**scope, "headers": kept, "path": _path(scope["path"])}, receive, send)


async def _refuse(send: _Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _path(path: str) -> str:
    """The path of a request's target, which a proxy is sent as a whole URL."""
    return urlsplit(path).path if path.startswith("http://") else path


def main() -> None:
    """Runs Flower's command on the inherited socket whose descriptor is the first argument."""
    listener = socket.socket(fileno=int(sys.argv.pop(1)))
    proxy = os.environ["HTTP_PROXY"]

    def run(app: _App, **options: Any) -> None:
        uvicorn.Server(uvicorn.Config(Guarded(app, proxy), **options)).run(sockets=[listener])

    uvicorn.run = run  # type: ignore[assignment]
    (command,) = entry_points(group="console_scripts", name="flower-superlink")
    command.load()()


if __name__ == "__main__":
    main()
