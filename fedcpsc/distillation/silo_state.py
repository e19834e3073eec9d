# SPDX-License-Identifier: Apache-2.0
"""What the server knows of one silo during a run: what it was sent, what it owes, how it has answered so far."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fedcpsc.distillation.parts import Part, parts_of
from fedcpsc.distillation.transport import SiloId
from fedcpsc.protocol.messages import AnswerForm, Description
from fedcpsc.runs.bank_journal import Batch
from fedcpsc.runs.lineage import Lineage

__all__ = ["Sent", "SiloState", "states_of"]

_MOST_PARTS = 8  # queries at a silo of small queries, in place of one that holds a whole batch
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
        departed: whether an earlier run alone has asked it: it is no part of the quorum.
        first_round: number of the first round whose images it is asked about, >= 0.
        teachers: numbers of rounds, from the first, that each of its earlier teachers may have been asked about.
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
    departed: bool = False
    first_round: int = 0
    teachers: tuple[int, ...] = ()

    def parts(self, batch: Batch, silo: SiloId) -> list[Part]:
        """What it is still to be asked of a batch, in queries that it takes.

        Args:
            batch: batch of the bank.
            silo: its name.
        """
        if batch.round < self.first_round:
            return []
        return parts_of(batch, silo, self.size, sum(batch.round < rounds for rounds in self.teachers))

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


def states_of(
    descriptions: Mapping[SiloId, Description],
    forms: Mapping[SiloId, AnswerForm],
    *,
    denoise: bool,
    in_flight: int,
    images_fit: int | None,
    lineage: Lineage | None = None,
    departed: Collection[SiloId] = (),
) -> dict[SiloId, SiloState]:
    """The state of every silo of a bank before it is asked anything.

    Args:
        descriptions: descriptions of the silos.
        forms: answer form to ask each for.
        denoise: whether the noise that silos state is accounted for.
        in_flight: number of queries that may be in flight at each silo, >= 1; some more where its queries are small.
        images_fit: number of images that a query's bytes may hold, >= 1; None: any.
        lineage: where the bank's answers came from; None where this run asks for all of them.
        departed: names of silos that an earlier run alone has asked.
    """
    earlier = () if lineage is None else lineage.earlier
    sizes = {s: min(d.images_per_query, images_fit or d.images_per_query) for s, d in descriptions.items()}
    largest = max(size for silo, size in sizes.items() if silo not in departed or len(departed) == len(sizes))
    states = {}
    for silo, description in descriptions.items():
        first, teachers = 0, []
        for column in earlier:
            if column.silo == silo and column.replaced:
                first = 0
                teachers.append(column.rounds)
            elif column.silo == silo:  # the same teacher has answered these images, under other terms
                first = column.rounds
        states[silo] = SiloState(
            description,
            forms[silo],
            description.noise_sigma if denoise else 0.0,
            sizes[silo],
            in_flight * min(_MOST_PARTS, -(-largest // sizes[silo])),
            description.recipes,
            answers_left=description.answers_left,
            departed=silo in departed,
            first_round=first,
            teachers=tuple(teachers),
        )
    return states
