# SPDX-License-Identifier: Apache-2.0
"""The names of answer forms, apart from the messages: a policy is read without numpy."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["AnswerForm"]


class AnswerForm(StrEnum):
    """What of the teacher's output an answer shows, the richest first."""

    PROBABILITIES = "probabilities"
    TOP_K = "top_k"
    LABEL = "label"
