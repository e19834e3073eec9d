# SPDX-License-Identifier: Apache-2.0
"""A silo behind a socket, as its gatekeeper's process serves it, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from fedcpsc.gatekeeper.listening import bound_socket
from fedcpsc.gatekeeper.outage import Outage
from fedcpsc.gatekeeper.policy import ServicePolicy
from fedcpsc.gatekeeper.service import build_app
from fedcpsc.protocol.messages import QueryTarget


@contextmanager
def served(silo: QueryTarget, path: Path, outage: Outage | None = None) -> Iterator[Path]:
    """Serves it at `path` until the end of the block."""
    app = build_app(silo, ServicePolicy(), max_bytes=10**6, outage=outage)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="error", lifespan="off"))
    with bound_socket(path) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield path
        finally:
            server.should_exit = True
            thread.join()
