# SPDX-License-Identifier: Apache-2.0
"""The mean weighted by confidence."""

from __future__ import annotations

from fedcpsc.aggregation.rule import Floats, LinearRule, confidence

__all__ = ["ENTROPY"]


class _Entropy(LinearRule):
    def weight(self, answers: Floats, present: Floats) -> Floats:
        return present * confidence(answers)


ENTROPY = _Entropy(
    name="entropy",
    summary="mean of the answers weighted by exp(-entropy): the more confident a silo, the more it counts",
    when="where some silos know an image's class and others do not, and confidence can be trusted",
)
