"""A silo in forty lines: answers by a fixed rule, keeps a budget, replays, and can be told to misbehave."""

from __future__ import annotations

import numpy as np

from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, DpClaim, Query, Refusal

CLASSES, SHAPE = 3, (1, 4, 4)


class FakeGatekeeper:
    """Class of an image: its mean pixel modulo three. `QueryTarget`."""

    def __init__(self, silo: str, budget: int = 1000) -> None:
        self.silo, self.budget, self.left = silo, budget, budget
        self.fails: Exception | None = None
        self.calls = 0
        self._replies: dict[str, Answer] = {}

    def describe(self, request: DescribeRequest) -> Description | Refusal:
        self.calls += 1
        if self.fails:
            raise self.fails
        return Description(self.silo, CLASSES, SHAPE, tuple(AnswerForm), 100, self.budget, self.left)

    def answer(self, query: Query) -> Answer | Refusal:
        self.calls += 1
        if self.fails:
            raise self.fails
        if query.query_id in self._replies:
            return self._replies[query.query_id]
        if len(query.images) > self.left:
            return Refusal(RefusalCode.BUDGET, query.query_id)
        self.left -= len(query.images)
        classes = (query.images.reshape(len(query.images), -1).mean(1) % CLASSES).astype(int)
        values = np.eye(CLASSES, dtype=np.uint8)[classes] * np.uint8(255)
        reply = Answer(query.query_id, AnswerForm.PROBABILITIES, CLASSES, values, self.left, claim=DpClaim())
        self._replies[query.query_id] = reply
        return reply


def images(count: int, level: int = 0) -> np.ndarray:
    """uint8 [count, 1, 4, 4]."""
    return np.full((count, *SHAPE), level, np.uint8)
