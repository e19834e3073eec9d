# SPDX-License-Identifier: Apache-2.0
"""The client of a gatekeeper's process: what a relay holds instead of a teacher. Imports no torch and no model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import httpx

from fedcpsc.errors import ProtocolError, RefusalCode, VersionError
from fedcpsc.logs import fields
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import (
    Answer,
    AnyQuery,
    DescribeRequest,
    Description,
    EvaluationAnswer,
    EvaluationQuery,
    Message,
    Refusal,
)

__all__ = ["SocketGatekeeper"]

log = logging.getLogger("fedcpsc.gatekeeper")

_PIECE = 2**18

Wanted = TypeVar("Wanted", Answer, Description, EvaluationAnswer)


class SocketGatekeeper:
    """Implements `QueryTarget` and `EvaluationTarget` over a Unix-domain socket; several threads may call it.

    A gatekeeper that cannot be reached, or says what is no protocol message, is a refusal with code `internal`: the
    owner finds the reason in the log. One of another major version is a refusal with code `version`, in its version.

    Args:
        socket_path: path of the gatekeeper's socket.
        timeout_s: number of seconds to wait for an answer, > 0.
    """

    def __init__(self, socket_path: str | Path, timeout_s: float = 600.0) -> None:
        self._path = str(socket_path)
        transport = httpx.HTTPTransport(uds=self._path, retries=2)
        timeout = httpx.Timeout(timeout_s, connect=10.0)
        self._http = httpx.Client(transport=transport, base_url="http://gatekeeper", timeout=timeout)

    def describe(self, request: DescribeRequest) -> Description | Refusal:
        """The silo's public facts."""
        return self._call("/describe", request, Description)

    def answer(self, query: AnyQuery) -> Answer | Refusal:
        """Answers the whole query or refuses the whole query."""
        reply = self._call("/answer", query, Answer)
        if isinstance(reply, Refusal) and not reply.query_id:  # refused before it was read
            return dataclasses.replace(reply, query_id=query.query_id)
        return reply

    def evaluate(self, query: EvaluationQuery) -> EvaluationAnswer | Refusal:
        """How many held-out images a student classifies rightly, or a refusal."""
        reply = self._call("/evaluate", query, EvaluationAnswer)
        if isinstance(reply, Refusal) and not reply.query_id:
            return dataclasses.replace(reply, query_id=query.query_id)
        return reply

    def health(self) -> str:
        """`ok`, or `out_of_service` where its teacher failed lately; empty where it does not say."""
        try:
            told = self._http.get("/health").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return ""
        return str(told.get("status", "")) if isinstance(told, dict) else ""

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _call(self, path: str, message: Message, wanted: type[Wanted]) -> Wanted | Refusal:
        if not Path(self._path).is_socket():
            log.error("no gatekeeper listens there", extra=fields(note=self._path))
            return Refusal(RefusalCode.INTERNAL)
        try:
            body = to_bytes(message)
            response = self._http.post(path, content=_pieces(body), headers={"Content-Length": str(len(body))})
            reply = from_bytes(response.raise_for_status().content)
        except VersionError as error:  # said on in the silo's version: whoever reads it sees which one that is
            log.error("no reply from the gatekeeper", extra=fields(note=f"{self._path}: {error}"))
            return Refusal(RefusalCode.VERSION, version=error.spoken)
        except (httpx.HTTPError, ProtocolError) as error:
            log.error("no reply from the gatekeeper", extra=fields(note=f"{self._path}: {type(error).__name__}"))
            return Refusal(RefusalCode.INTERNAL)
        return reply if isinstance(reply, wanted | Refusal) else Refusal(RefusalCode.INTERNAL)


def _pieces(body: bytes) -> Iterator[bytes]:
    """The body in parts: httpcore copies all that is left of a part each time the socket has taken some of it."""
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
