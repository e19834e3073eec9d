# SPDX-License-Identifier: Apache-2.0
"""Fake silos that judge students, honestly or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.fakes import FakeSilo

from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.evaluating import predictions
from fedcpsc.gatekeeper.held_out import HeldOut
from fedcpsc.models.sent import network_of_bytes
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, PerClassCounts
from fedcpsc.protocol.messages import Refusal


class JudgingSilo(FakeSilo):
    """Says that `right` of its images are right, of whatever student; counts who is charged."""

    def __init__(self, name, right=80, images=100, sigma=0.0, misbehave=lambda query, count: None, **fields):
        super().__init__(name, **fields)
        self.description = replace(self.description, evaluation=EvaluationOffer(5, 5, sigma, images, 10**7))
        self.right, self.sigma, self.images = right, sigma, images
        self.judge_misbehaves = misbehave
        self.students, self.judged = [], {}

    def evaluate(self, query):
        self.students.append(query)
        if query.query_id in self.judged:
            return self.judged[query.query_id]
        found = self.judge_misbehaves(query, len(self.students))
        if isinstance(found, RefusalCode):
            return Refusal(found, query.query_id)
        if found is not None:
            return found
        left = self.description.evaluation.total - len(self.judged) - 1
        answer = self.answer_about(query, left)
        self.judged[query.query_id] = answer
        return answer

    def answer_about(self, query, left):
        """What it says of a student; `left` evaluations are left then."""
        return EvaluationAnswer(query.query_id, self.right, self.sigma, self.images, left)


class CountingSilo(JudgingSilo):
    """Judges students on real images, class by class; `says` may change what it says.

    Args:
        name: name of the silo.
        held_out: images of the silo, labelled in its own classes.
        evaluations: number of students that it judges.
        says: function of the honest counts and of the number of students before, which gives those that it tells.
        fields: further arguments of a `FakeSilo`.
    """

    def __init__(self, name, held_out, evaluations=5, says=lambda told, before: told, **fields):
        super().__init__(name, images=len(held_out), **fields)
        offer = EvaluationOffer(evaluations, evaluations, 0.0, len(held_out), 10**7, per_class=True)
        self.description = replace(self.description, evaluation=offer)
        self.held_out, self.says = held_out, says

    def answer_about(self, query, left):
        weights = query.weights.tobytes()
        network = network_of_bytes(query.architecture, query.classes, query.image_shape, query.width, weights)
        predicted, labels = predictions(network, self.held_out), self.held_out.labels
        own, outputs = len(query.outputs), np.array(query.outputs)
        right = predicted == outputs[labels]
        honest = PerClassCounts(
            tuple(np.bincount(labels, minlength=own).tolist()),
            tuple(np.bincount(labels[right], minlength=own).tolist()),
            tuple((predicted[:, None] == outputs).sum(0).tolist()),
        )
        told = self.says(honest, len(self.judged))
        return EvaluationAnswer(query.query_id, sum(told.right), 0.0, self.images, left, per_class=told)


def bright_images(count=60, seed=0, classes=3, own=(0, 1, 2)):
    """Images whose mean brightness lies in the middle of their class's third: what `FakeSilo` teaches."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(own)
    level = (np.array(own)[labels] + 0.5) / classes + rng.uniform(-0.1, 0.1, count)
    images = np.clip(255 * level[:, None, None, None] + rng.normal(0, 20, (count, 1, 8, 8)), 0, 255)
    return HeldOut(images.astype(np.uint8), labels)
