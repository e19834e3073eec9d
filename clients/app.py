# SPDX-License-Identifier: Apache-2.0
"""The Flower ClientApp: relays `describe`, `answer` and `evaluate` to the silo's gatekeeper, and knows nothing else.

Whatever happens here, a code leaves and nothing more. Flower itself would send an exception's text, so this app answers
unknown actions and its own failures before Flower sees them.
"""

from __future__ import annotations

import logging
import time
from functools import cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.node import target_of
from fedcpsc.errors import FedcpscError, ProtocolError, RefusalCode, Refused, VersionError
from fedcpsc.logs import configure_quietly, fields
from fedcpsc.protocol.messages import AnyQuery, DescribeRequest, EvaluationQuery, QueryTarget, Refusal, judge_of
from fedcpsc.protocol.messages import Message as ProtocolMessage
from fedcpsc.protocol.records import from_records, refusal_error, to_records

__all__ = ["RelayApp", "app"]

log = logging.getLogger("fedcpsc.clients")

APP_FOLDER = Path(__file__).resolve().parent.parent
_ACTIONS = frozenset({"query.describe", "query.answer", "query.evaluate"})


class RelayApp(ClientApp):
    """A ClientApp that turns whatever it does not serve, and whatever fails, into a refusal code."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Serves `query.describe`, `query.answer` and `query.evaluate`; touches nothing for any other message."""
        if message.metadata.message_type not in _ACTIONS:
            return Message(refusal_error(RefusalCode.ACTION), reply_to=message)
        try:
            _begin_log()
            return super().__call__(message, context)
        except Refused as refused:
            return _reply(Refusal(refused.code), message)
        except Exception as error:
            # an owner wants the reason of our own errors; a foreign message may quote data
            note = str(error) if isinstance(error, FedcpscError) else type(error).__name__
            log.error("no reply", extra=fields(code=RefusalCode.INTERNAL.value, note=note))
            return Message(refusal_error(RefusalCode.INTERNAL), reply_to=message)


app = RelayApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """`DescribeRequest` -> `Description` or `Refusal`."""
    request = _read(message)
    if not isinstance(request, DescribeRequest):
        raise Refused(RefusalCode.MALFORMED)
    return _reply(_target(message, context).describe(request), message)


@app.query("answer")
def answer(message: Message, context: Context) -> Message:
    """`Query` or `RecipeQuery` -> `Answer` or `Refusal`."""
    begun = time.monotonic()
    query = _read(message)
    if not isinstance(query, AnyQuery):
        raise Refused(RefusalCode.MALFORMED)
    reply = _target(message, context).answer(query)
    code = reply.code.value if isinstance(reply, Refusal) else None
    seconds = round(time.monotonic() - begun, 3)
    log.info(
        "relayed a query",
        extra=fields(run=query.run, query_id=query.query_id, images=query.count, code=code, seconds=seconds),
    )
    return _reply(reply, message)


@app.query("evaluate")
def evaluate(message: Message, context: Context) -> Message:
    """`EvaluationQuery` -> `EvaluationAnswer` or `Refusal`."""
    query = _read(message)
    if not isinstance(query, EvaluationQuery):
        raise Refused(RefusalCode.MALFORMED)
    judge = judge_of(_target(message, context))
    reply = Refusal(RefusalCode.NO_EVALUATION, query.query_id) if judge is None else judge.evaluate(query)
    code = reply.code.value if isinstance(reply, Refusal) else None
    log.info("relayed an evaluation", extra=fields(run=query.run, query_id=query.query_id, code=code))
    return _reply(reply, message)


def _target(message: Message, context: Context) -> QueryTarget:
    return target_of(context.node_config, context.run_config, APP_FOLDER, message.metadata.group_id)


@cache
def _begin_log() -> None:
    """Once a process: this one was started by Flower, which asks for no log."""
    configure_quietly()


def _read(message: Message) -> ProtocolMessage:
    """The protocol message inside.

    Raises:
        Refused: it holds none.
    """
    try:
        return from_records(message.content)
    except VersionError as error:
        raise Refused(RefusalCode.VERSION) from error
    except (ProtocolError, ValueError) as error:  # Flower raises ValueError where a message has no content
        raise Refused(RefusalCode.MALFORMED) from error


def _reply(content: ProtocolMessage, message: Message) -> Message:
    return Message(to_records(content), reply_to=message)
