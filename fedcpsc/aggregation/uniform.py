# SPDX-License-Identifier: Apache-2.0
"""The plain mean."""

from __future__ import annotations

from fedcpsc.aggregation.rule import Floats, LinearRule

__all__ = ["UNIFORM"]


class _Uniform(LinearRule):
    def weight(self, answers: Floats, present: Floats) -> Floats:
        del answers
        return present


UNIFORM = _Uniform(
    name="uniform",
    summary="mean of the silos' answers",
    when="where the silos hold similar classes",
    may_tell_label_mix=False,
)
