# SPDX-License-Identifier: Apache-2.0
"""How queries reach the silos and how their replies come back, some time later.

`SiloTransport` is the seam: `LocalTransport` calls gatekeepers in this process (tests, single-machine runs);
`server.flower_transport.FlowerTransport` sends Flower messages. The contract suite in `tests/contracts` runs over both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fedcpsc.errors import RefusalCode, explain
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import (
    Answer,
    AnyQuery,
    DescribeRequest,
    Description,
    EvaluationAnswer,
    EvaluationQuery,
    QueryTarget,
    Refusal,
    judge_of,
)

__all__ = [
    "Asked",
    "LocalTransport",
    "Lost",
    "Reply",
    "SiloId",
    "SiloTransport",
    "Traffic",
    "Unreadable",
    "name_is_taken",
]

SiloId: TypeAlias = str
Asked: TypeAlias = AnyQuery | EvaluationQuery
"""What a silo is sent: images to answer, or a student to judge."""


@dataclass(frozen=True)
class Lost:
    """No reply came, and none will: the message timed out or its node went away.

    Whether the silo charged its budget is unknown; the same query id may be sent again (the silo's ledger then
    replays the stored reply without charging twice).
    """

    query_id: str
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """A reply came that is not of the protocol, such as an answer of NaN.

    Asking again is of no use: the silo's ledger would send the very same bytes.
    """

    query_id: str
    reason: str


@dataclass(frozen=True)
class Reply:
    """One silo's reply to one query.

    Attributes:
        silo: name of the silo that replied.
        content: answer, number of an evaluation, refusal, or the fact that nothing will come, or nothing readable came.
        seconds: seconds from sending to arrival, >= 0.
    """

    silo: SiloId
    content: Answer | EvaluationAnswer | Refusal | Lost | Unreadable
    seconds: float


@dataclass
class Traffic:
    """Payload bytes of all messages so far, as encoded by this transport."""

    bytes_sent: int = 0
    bytes_received: int = 0


class SiloTransport(Protocol):
    """The way to silos that answer queries. One thread uses it; an implementation may have threads of its own.

    A name belongs to the node that described itself by it first, for as long as the run lasts: only that node is asked
    under it, and only its replies are taken. A second node of the name is turned away.

    Attributes:
        traffic: bytes of all messages so far.
        turned_away: reasons why nodes that did answer `connect` were not let in, by the node: what they sent cannot be
            read, was a refusal, or names a silo that has joined already.
    """

    traffic: Traffic
    turned_away: dict[str, str]

    def connect(self, count: int, timeout_s: float) -> dict[SiloId, Description]:
        """Waits until `count` silos have described themselves, at most `timeout_s`; returns those that did.

        Must be called first. Fewer than `count` may come back (even none): the caller decides about quorum.
        """
        ...

    def send(self, queries: Mapping[SiloId, Asked]) -> None:
        """Sends without waiting. Several queries may be in flight at a silo, where the transport answers in order."""
        ...

    def receive(self, timeout_s: float) -> list[Reply]:
        """Replies that have arrived; waits at most `timeout_s` for the first, and as long where none is due.

        Every query sent yields exactly one reply.
        """
        ...

    def close(self) -> None:
        """Releases threads and connections; outstanding queries are abandoned."""
        ...


def name_is_taken(silo: SiloId, node: str) -> str:
    """Why a node that describes itself by another node's name is not let in."""
    return explain("silo", silo, f"{node} joined by this name before", "give each silo a name of its own")


class LocalTransport:
    """Gatekeepers called in this process, one after the other, when `receive` is called."""

    def __init__(self, targets: Sequence[QueryTarget]) -> None:
        self.traffic = Traffic()
        self.turned_away: dict[str, str] = {}
        self._targets = list(targets)
        self._by_silo: dict[SiloId, QueryTarget] = {}
        self._waiting: list[tuple[SiloId, Asked, float]] = []

    def connect(self, count: int, timeout_s: float) -> dict[SiloId, Description]:
        """Every target that describes itself, at once."""
        del count, timeout_s  # every target is here already
        found: dict[SiloId, Description] = {}
        for number, target in enumerate(self._targets):
            description = target.describe(DescribeRequest())
            node = f"node {number}"
            if not isinstance(description, Description):
                self.turned_away[node] = f"refused ({description.code.value})"
            elif description.silo in found:
                self.turned_away[node] = name_is_taken(description.silo, "another node")
            else:
                found[description.silo] = description
                self._by_silo[description.silo] = target
        return found

    def send(self, queries: Mapping[SiloId, Asked]) -> None:
        """Keeps the queries for the next `receive`."""
        now = time.monotonic()
        self._waiting += [(silo, query, now) for silo, query in queries.items()]

    def receive(self, timeout_s: float) -> list[Reply]:
        """Has each silo's oldest kept query answered here and now; without any it sleeps, for nothing is to come.

        One of each, so that a silo that is sent many small queries does not hold up the others' replies.
        """
        if not self._waiting:
            time.sleep(timeout_s)
        replies = []
        oldest: dict[SiloId, tuple[SiloId, Asked, float]] = {}
        for kept in self._waiting:
            oldest.setdefault(kept[0], kept)
        self._waiting = [kept for kept in self._waiting if kept is not oldest[kept[0]]]
        for silo, query, sent_at in oldest.values():
            content = _reply_of(self._by_silo[silo], query)
            self.traffic.bytes_sent += len(to_bytes(query))
            self.traffic.bytes_received += len(to_bytes(content))
            replies.append(Reply(silo, content, time.monotonic() - sent_at))
        return replies

    def close(self) -> None:
        """Forgets kept queries."""
        self._waiting.clear()


def _reply_of(target: QueryTarget, query: Asked) -> Answer | EvaluationAnswer | Refusal:
    if not isinstance(query, EvaluationQuery):
        return target.answer(query)
    judge = judge_of(target)
    return Refusal(RefusalCode.NO_EVALUATION, query.query_id) if judge is None else judge.evaluate(query)
