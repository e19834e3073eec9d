# SPDX-License-Identifier: Apache-2.0
"""Fakes that speak the protocol: a silo without torch, a ledger or a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.messages import Answer, AnswerForm, ClassReport, DescribeRequest, Description, Query, Refusal


def brightness_probabilities(images: np.ndarray, classes: int = 3, own: tuple[int, ...] | None = None) -> np.ndarray:
    """A teacher that needs no training: where the mean brightness lies decides the class. float32 [N, K].

    Args:
        images: uint8 [N, C, H, W].
        classes: number of classes, K where `own` is None.
        own: numbers of the classes that the teacher knows, K of them; its columns are in their order.
    """
    level = images.reshape(len(images), -1).mean(1) / 255.0
    centres = (np.arange(classes) + 0.5) / classes
    logits = -40.0 * (level[:, None] - centres[None, :]) ** 2
    logits = logits if own is None else logits[:, list(own)]
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


class FakeSilo:
    """A QueryTarget with a budget and a script of misbehaviour.

    Args:
        noise_sigma: noise on its probabilities, always the same for the same query.
        teacher: probabilities of images, [N, K]; None: `brightness_probabilities`.
        class_names, none_class, share_answers: fields of its description.
        misbehave: called with (query, count of queries so far); returns a RefusalCode, or None to answer.

    Attributes:
        fails: raised by every call, where set.
        calls: how often it was called at all.
    """

    def __init__(
        self,
        name: str = "silo-0",
        *,
        classes: int = 3,
        image_shape: tuple[int, int, int] = (1, 8, 8),
        budget: int = 10_000,
        images_per_query: int = 64,
        forms: tuple[AnswerForm, ...] = (AnswerForm.PROBABILITIES,),
        class_report: ClassReport | None = None,
        noise_sigma: float = 0.0,
        teacher: Callable[[np.ndarray], np.ndarray] | None = None,
        class_names: tuple[str, ...] | None = None,
        none_class: bool = False,
        share_answers: bool = False,
        misbehave: Callable[[Query, int], RefusalCode | None] = lambda query, count: None,
    ) -> None:
        self.description = Description(
            name,
            classes,
            image_shape,
            forms,
            images_per_query,
            budget,
            budget,
            class_report=class_report,
            noise_sigma=noise_sigma,
            class_names=class_names,
            none_class=none_class,
            share_answers=share_answers,
        )
        self._teacher = teacher or (lambda images: brightness_probabilities(images, classes))
        self.left = budget
        self.misbehave = misbehave
        self.queries: list[Query] = []
        self.answered: dict[str, Answer] = {}
        self.fails: Exception | None = None
        self.calls = 0

    def describe(self, request: DescribeRequest) -> Description | Refusal:
        self._called()
        return self.description

    def answer(self, query: Query) -> Answer | Refusal:
        self._called()
        self.queries.append(query)
        if query.query_id in self.answered:
            return self.answered[query.query_id]
        code = self.misbehave(query, len(self.queries))
        if code is not None:
            return Refusal(code, query.query_id)
        if len(query.images) > self.left:
            return Refusal(RefusalCode.BUDGET, query.query_id)
        self.left -= len(query.images)
        p = self._teacher(query.images)
        values = np.rint(p * 255).astype(np.uint8)
        if query.form is AnswerForm.LABEL:
            values = p.argmax(1).astype(np.uint16)
        elif sigma := self.description.noise_sigma:
            rng = np.random.default_rng(int(query.query_id[:8], 16))
            values = (p + rng.normal(0, sigma, p.shape)).astype(np.float32)
        answer = Answer(query.query_id, query.form, self.description.classes, values, self.left)
        self.answered[query.query_id] = answer
        return answer

    def _called(self) -> None:
        self.calls += 1
        if self.fails is not None:
            raise self.fails
