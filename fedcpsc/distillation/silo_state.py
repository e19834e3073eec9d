# SPDX-License-Identifier: Apache-2.0
"""What the server knows of one silo during a run: what it was sent, what it owes, how it has answered so far."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, deque
from dataclasses import dataclass, field

from fedcpsc.distillation.parts import Part
from fedcpsc.protocol.messages import AnswerForm, Description

__all__ = ["Sent", "SiloState"]

_LATEST = 3  # replies that tell how long a silo now needs


@dataclass(frozen=True)
class Sent:
    """A query in flight.

    Attributes:
        part: images it asks about.
        asked_s: time at which it was sent, in seconds on the run's clock.
        by_recipe: whether it carries a recipe in place of its images.
    """

    part: Part
    asked_s: float
    by_recipe: bool


@dataclass
class SiloState:
    """What the server knows of one silo during a run.

    Attributes:
        description: description that it gave of itself.
        form: answer form it is asked for.
        noise: standard deviation of the noise that is removed from its answers, >= 0; 0 reads them as they are.
        size: most images of a query to it, >= 1.
        limit: number of queries that it takes at once, >= 1.
        recipes: whether it is sent recipes in place of images, where there are any.
        waiting: queries still to be sent.
        in_flight: queries that it has, by id, oldest first.
        left: reason why it is no longer asked; empty while it is.
        answers_left: number of images that its owner still allows, >= 0.
        refusals: number of its refusals, by code.
        refused_in_a_row: number of refusals since its last answer, >= 0.
        tries: number of failures of each query, by id.
        failing_s: time of each failed query's first failure, in seconds on the run's clock.
        retry_at_s: time before which it is sent nothing, in seconds on the run's clock.
        seconds: round-trip time of each answer, in seconds.
        needed: seconds it had each query to itself: since it was sent, or since the reply before it came.
        heard_s: time of its last reply, in seconds on the run's clock.
        missed: whether it has answered no batch since the run went on without it at a deadline.
    """

    description: Description
    form: AnswerForm
    noise: float
    size: int
    limit: int
    recipes: bool = False
    waiting: deque[Part] = field(default_factory=deque)
    in_flight: dict[str, Sent] = field(default_factory=dict)
    left: str = ""
    answers_left: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    refused_in_a_row: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    failing_s: dict[str, float] = field(default_factory=dict)
    retry_at_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    needed: list[float] = field(default_factory=list)
    heard_s: float = 0.0
    missed: bool = False

    def owes(self, before: int) -> bool:
        """Whether it still owes an answer to a round before that one."""
        if self.left:
            return False
        parts = itertools.chain(self.waiting, (sent.part for sent in self.in_flight.values()))
        return any(part.round < before for part in parts)

    @property
    def seconds_a_query(self) -> float:
        """Seconds that it has lately needed for a query; 0 before its first answer."""
        return statistics.median(self.needed[-_LATEST:]) if self.needed else 0.0
