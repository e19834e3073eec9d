# SPDX-License-Identifier: Apache-2.0
"""A fake silo that judges students, honestly or not."""

from __future__ import annotations

from dataclasses import replace

from support.fakes import FakeSilo

from fedcpsc.errors import RefusalCode
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer
from fedcpsc.protocol.messages import Refusal


class JudgingSilo(FakeSilo):
    """Says that `right` of its images are right; counts who is charged."""

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
        answer = EvaluationAnswer(query.query_id, self.right, self.sigma, self.images, 5 - len(self.judged) - 1)
        self.judged[query.query_id] = answer
        return answer
