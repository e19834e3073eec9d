# SPDX-License-Identifier: Apache-2.0
"""Silos weighed by how often they name a class.

`W_sc` is proportional to `m_sc exp(-H(p_s))`, m_s the mean of all that silo s has answered so far: a silo that has
hardly seen a class hardly ever names it.
"""

from __future__ import annotations

import numpy as np

from fedcpsc.aggregation.rule import AnswersSoFar, Floats, LogRule

__all__ = ["ANSWER_PRIOR_LOG"]


class _AnswerPriorLog(LogRule):
    def learn(self, answers: AnswersSoFar) -> Floats:
        """Each silo's mean answer so far: float32 [S, K]; rows sum to 1 or, of silos that were silent, to 0."""
        silos, classes = answers.shape
        total, count = np.zeros((silos, classes)), np.zeros((silos, 1))
        for piece, given in answers.pieces():
            total += (piece * given[:, :, None]).sum(1)
            count += given.sum(1, keepdims=True)
        mean: Floats = (total / np.maximum(count, 1)).astype(np.float32)
        return mean


ANSWER_PRIOR_LOG = _AnswerPriorLog(
    name="answer_prior_log",
    summary="as `class_prior_log`, with a silo's mean answer so far for its class counts, and weighted by confidence",
    when="where silos hold different classes, share no class counts, and rarely name classes that they lack",
    parameters=("aggregation.smoothing",),
    learns_from_answers=True,
    prefers_confident=True,
)
