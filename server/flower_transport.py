# SPDX-License-Identifier: Apache-2.0
"""`SiloTransport` over Flower: send, receive, time out.

One background thread owns Flower's Grid once queries are asked, because in a deployment a pull blocks while a reply
uploads. Nothing here computes: while Ray starts, linear algebra in the server's process would hang it, so whatever is
heavy has to wait until `connect` has returned.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid

from fedcpsc.distillation.transport import Asked, Lost, Reply, SiloId, Traffic, Unreadable, name_is_taken
from fedcpsc.errors import FederationError, ProtocolError, RefusalCode, VersionError, explain
from fedcpsc.logs import fields
from fedcpsc.printable import printable
from fedcpsc.protocol.messages import (
    Answer,
    DescribeRequest,
    Description,
    EvaluationAnswer,
    EvaluationQuery,
    Message,
    Refusal,
)
from fedcpsc.protocol.records import from_records, payload_bytes, refusal_code_of, to_records
from server.seats import Seat, seats_of

__all__ = ["FlowerTransport"]

log = logging.getLogger("fedcpsc.server")

_PULL_S = 0.05  # between two looks for replies
_RETRY_S = 3.0  # between two attempts to reach a node that was not ready
_GRACE_S = 10.0  # a reply is given up so long after its message has expired
_CLOSE_S = 5.0
_LONGEST = 300  # characters of a reason
_FOR_GOOD = frozenset({RefusalCode.VERSION, RefusalCode.ACTION, RefusalCode.MALFORMED})


@dataclass(frozen=True)
class _Sent:
    silo: SiloId
    query: Asked
    at: float  # monotonic seconds


@dataclass(frozen=True)
class _Failed:
    """No message of the protocol.

    Attributes:
        reason: reason for the operator, printable; it may quote the reply.
        logged: the same without any text from outside.
        came: whether the node sent something at all.
    """

    reason: str
    logged: str
    came: bool


class FlowerTransport:
    """The nodes of a federation, asked through Flower's Grid. Of two nodes with one name the first has it.

    Several queries may be in flight at one silo in a deployment, which answers first in, first out; a simulation runs
    them at the same time, so there keep to one.

    Args:
        grid: Flower's way to the nodes; from the first `send` on it belongs to this object's thread, until `close`.
        ttl_s: seconds after which a query without a reply is lost, > 0.
        simulated: number of silos of a simulation, >= 1, which share its nodes; None in a deployment.
    """

    def __init__(self, grid: Grid, ttl_s: float, simulated: int | None = None) -> None:
        self.traffic = Traffic()
        self.turned_away: dict[str, str] = {}
        self._grid = grid
        self._ttl_s = ttl_s
        self._simulated = simulated
        self._begun: float | None = None
        self._known: dict[SiloId, Description] = {}
        self._seats: dict[SiloId, Seat] = {}
        self._outbox: queue.Queue[_Sent | None] = queue.Queue()
        self._inbox: queue.Queue[Reply] = queue.Queue()
        self._outstanding = 0
        self._worker: threading.Thread | None = None

    def connect(self, count: int, timeout_s: float) -> dict[SiloId, Description]:
        """As `SiloTransport.connect`; called again before the first `send`, it waits only for those missing.

        `timeout_s` counts from the first call on, so that nobody is waited for twice.
        """
        self._begun = self._begun or time.monotonic()
        deadline = self._begun + timeout_s
        asked: dict[str, Seat] = {}
        ask_at: dict[Seat, float] = {}
        reasons: dict[Seat, str] = {}
        while len(self._known) < count:
            now = time.monotonic()
            seats = seats_of(self._grid.get_node_ids(), self._simulated)
            silent = [seat for seat in seats if seat not in self._seats.values()]
            due = [seat for seat in silent if seat not in asked.values() and ask_at.get(seat, now) <= now]
            asked |= {message: seat for seat in due if (message := self._send_one(seat, DescribeRequest(), "describe"))}
            for reply in self._pull(asked):
                seat = asked.pop(reply.metadata.reply_to_message_id)
                content = self._read(reply)
                if isinstance(content, Description) and content.silo not in self._seats:
                    self._join(seat, content)
                    continue
                for_good = isinstance(content, Description)
                for_good = for_good or (isinstance(content, Refusal) and content.code in _FOR_GOOD)
                ask_at[seat] = float("inf") if for_good else time.monotonic() + _RETRY_S
                self.turned_away[str(seat)], reason = self._why_not(content)
                if reasons.get(seat) != reason:  # once for each reason, not once for each try
                    log.warning("a silo has not joined yet", extra=fields(note=f"{seat}: {reason}"))
                reasons[seat] = reason
            if time.monotonic() >= deadline:
                break
            time.sleep(_PULL_S)
        return dict(self._known)

    def send(self, queries: Mapping[SiloId, Asked]) -> None:
        """As `SiloTransport.send`.

        Raises:
            ProtocolError: a silo that has not joined.
        """
        for silo in queries:
            if silo not in self._seats:
                raise ProtocolError(explain("silo", silo, f"must be one of {sorted(self._seats)}", "connect first"))
        now = time.monotonic()
        for silo, query in queries.items():
            self._outstanding += 1
            self._outbox.put(_Sent(silo, query, now))
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="fedcpsc-grid", daemon=True)
            self._worker.start()

    def receive(self, timeout_s: float) -> list[Reply]:
        """As `SiloTransport.receive`.

        Raises:
            FederationError: the thread that owns the Grid has died; its traceback is in the log.
        """
        replies: list[Reply] = []
        try:
            if timeout_s > 0:  # also where nothing is in flight: somebody rests before the next try
                replies.append(self._inbox.get(timeout=timeout_s))
            while True:
                replies.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        self._outstanding -= len(replies)
        if self._outstanding and not replies and self._worker is not None and not self._worker.is_alive():
            raise FederationError(
                explain(
                    "queries in flight", self._outstanding, "the connection to the SuperLink broke", "resume the run"
                )
            )
        return replies

    def close(self) -> None:
        """As `SiloTransport.close`; the Grid is free again."""
        if self._worker is not None:
            self._outbox.put(None)
            self._worker.join(_CLOSE_S)
            self._worker = None

    def _join(self, seat: Seat, description: Description) -> None:
        self._seats[description.silo] = seat
        self._known[description.silo] = description
        self.turned_away.pop(str(seat), None)

    def _why_not(self, content: Message | _Failed) -> tuple[str, str]:
        """Why a node has not joined: for the operator, and for the log, which holds no text from outside."""
        if isinstance(content, Description):
            return name_is_taken(content.silo, str(self._seats[content.silo])), "another node joined by its name"
        if isinstance(content, Refusal):
            return f"refused ({content.code.value})", content.code.value
        if isinstance(content, _Failed):
            return content.reason, content.logged
        return "its reply is no description", "its reply is no description"

    def _work(self) -> None:
        in_flight: dict[str, _Sent] = {}
        while True:
            try:
                sent = self._outbox.get(timeout=_PULL_S if in_flight else None)
                if sent is None:
                    return
                message = self._send_one(self._seats[sent.silo], sent.query, _action(sent.query))
                if message is None:
                    self._arrived(sent, Lost(sent.query.query_id, "could not be sent"))
                else:
                    in_flight[message] = sent
                continue  # send all that waits before looking for replies
            except queue.Empty:
                pass
            for reply in self._pull(in_flight):
                sent = in_flight.pop(reply.metadata.reply_to_message_id)
                self._arrived(sent, _content(sent.query, self._read(reply)))
            expired = [m for m, s in in_flight.items() if time.monotonic() - s.at > self._ttl_s + _GRACE_S]
            for message in expired:
                sent = in_flight.pop(message)
                self._arrived(sent, Lost(sent.query.query_id, f"no reply within {self._ttl_s:g} s"))

    def _arrived(self, sent: _Sent, content: Answer | EvaluationAnswer | Refusal | Lost | Unreadable) -> None:
        self._inbox.put(Reply(sent.silo, content, time.monotonic() - sent.at))

    def _send_one(self, seat: Seat, message: Message, action: str) -> str | None:
        """Flower's id of the message; None where it could not be sent."""
        records = to_records(message)
        try:
            outgoing = FlowerMessage(records, seat.node, f"query.{action}", ttl=self._ttl_s, group_id=seat.silo)
            identities = list(self._grid.push_messages([outgoing]))
        except Exception as error:
            note = f"{seat}: {type(error).__name__}"
            log.warning("a message could not be sent", extra=fields(note=note))
            return None
        if not identities or not identities[0]:
            return None
        self.traffic.bytes_sent += payload_bytes(records)
        return identities[0]

    def _pull(self, outstanding: Mapping[str, object]) -> list[FlowerMessage]:
        if not outstanding:
            return []
        try:
            replies = self._grid.pull_messages(list(outstanding))
        except Exception as error:
            log.warning("replies could not be pulled", extra=fields(note=type(error).__name__))
            return []
        return [reply for reply in replies if reply.metadata.reply_to_message_id in outstanding]

    def _read(self, reply: FlowerMessage) -> Message | _Failed:
        """The protocol message in `reply`, or why there is none."""
        if reply.has_error():
            code = refusal_code_of(reply.error)
            if code:
                return Refusal(code)
            return _Failed(f"Flower error {reply.error.code}", f"Flower error {reply.error.code}", came=False)
        try:
            self.traffic.bytes_received += payload_bytes(reply.content)
            return from_records(reply.content)
        except Exception as error:  # whatever one silo sends, this thread serves the others, too
            # what any other error says may quote the reply: the operator is shown it, the log is not
            why = str(error) if isinstance(error, VersionError) else type(error).__name__
            log.warning("a reply is not of this protocol", extra=fields(note=why))
            shown = printable(str(error), _LONGEST) if isinstance(error, ProtocolError) else why
            said = f"reply is not of this protocol: {shown}"
            return _Failed(said, f"reply is not of this protocol: {why}", came=True)


def _action(query: Asked) -> str:
    return "evaluate" if isinstance(query, EvaluationQuery) else "answer"


def _content(query: Asked, received: Message | _Failed) -> Answer | EvaluationAnswer | Refusal | Lost | Unreadable:
    if isinstance(received, Refusal):
        return Refusal(received.code, query.query_id)
    wanted = EvaluationAnswer if isinstance(query, EvaluationQuery) else Answer
    if isinstance(received, wanted) and received.query_id == query.query_id:
        return received
    if isinstance(received, _Failed) and received.came:
        return Unreadable(query.query_id, received.reason)
    return Lost(query.query_id, received.reason if isinstance(received, _Failed) else "reply to another question")
