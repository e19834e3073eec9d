# SPDX-License-Identifier: Apache-2.0
"""Flower's Grid in this process: real encoding, one first-in-first-out worker per node, no Ray, no network.

The only place that imports Flower's internals (flwr 1.41, see the pin in pyproject.toml).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

FIRST_NODE = 100


class InProcGrid(Grid):
    """`app` serves every node; node i has the configuration `node_configs[i]`."""

    def __init__(
        self,
        app: Callable[[Message, Context], Message],
        node_configs: list[dict[str, Any]],
        run_config: dict[str, Any] | None = None,
    ) -> None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # else no Message can be made
        self.app = app
        self.joined = len(node_configs)  # lower it to keep nodes away
        self.sent: list[Message] = []
        self._pools = {FIRST_NODE + i: ThreadPoolExecutor(1) for i in range(len(node_configs))}
        self._replies: dict[str, Future[Message]] = {}
        self._contexts = {
            FIRST_NODE + i: Context(1, FIRST_NODE + i, config, RecordDict(), run_config or {})
            for i, config in enumerate(node_configs)
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self._pools)[: self.joined]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = [over_the_wire(message) for message in messages]
        self.sent += pushed
        for message in pushed:
            pool = self._pools[message.metadata.dst_node_id]
            self._replies[message.metadata.message_id] = pool.submit(self._serve, message)
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        done = [m for m in message_ids if m in self._replies and self._replies[m].done()]
        return [self._replies.pop(message).result() for message in done]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._replies.pop(message).result(timeout) for message in self.push_messages(messages)]

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self, message: Message) -> Message:
        try:
            reply = self.app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            reply = Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=message)  # as Flower does
        return over_the_wire(reply)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError


def over_the_wire(message: Message) -> Message:
    """Deflated to bytes (in chunks of 5 MB) and inflated to a new object."""
    identity = message.object_id
    contents = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(identity, contents)
    arrived.metadata.__dict__["_message_id"] = identity
    return arrived
