# SPDX-License-Identifier: Apache-2.0
"""The questions about one student to the silos: what is sent, how often, and which answers are believed."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig
from fedcpsc.distillation.transport import Lost, Reply, SiloId, SiloTransport, Unreadable
from fedcpsc.errors import RefusalCode
from fedcpsc.label_sets import LabelSets
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.students import Start
from fedcpsc.printable import printable
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, EvaluationQuery, PerClassCounts
from fedcpsc.protocol.messages import Description, Refusal
from fedcpsc.runs.evaluations import Evaluations, silo_evaluation, write_evaluations
from fedcpsc.runs.result import SiloEvaluation

__all__ = ["LONGEST_REASON", "NOT_OFFERED", "USED_UP", "EvaluationRequests", "JudgedStudent"]

LONGEST_REASON = 300
"""Characters of a reason that somebody else may have written."""
NOT_OFFERED = "it offers none"
"""The reason of a silo whose policy has no section `evaluation`: nothing that an operator should look into."""
USED_UP = "its evaluations are used up"
"""The reason of a silo that has judged as many students as its policy allows."""

_LOOK_S = 0.2
_TRIES = 4
_SURE = 12.0  # standard deviations of noise beyond which no honest number lies
_AGAIN = frozenset({RefusalCode.BUSY, RefusalCode.INTERNAL, RefusalCode.OUT_OF_SERVICE})


@dataclass(frozen=True, eq=False)
class JudgedStudent:
    """The student of a run, and the silos that may be asked about it.

    Attributes:
        network: the fitted student.
        start: what it began as.
        label_sets: the silos' classes, in the order of `silos`.
        image_shape: (C, H, W) of its images.
        silos: names of the silos of the bank.
        descriptions: descriptions of the silos that have joined, by name.
        suspected: names of the silos whose answers to the run's queries contradict the others'.
        accuracy: its accuracy on the server's held-out images; None without any.
    """

    network: Classifier
    start: Start
    label_sets: LabelSets
    image_shape: tuple[int, int, int]
    silos: tuple[SiloId, ...]
    descriptions: Mapping[SiloId, Description]
    suspected: frozenset[SiloId] = frozenset()
    accuracy: float | None = None

    def places_of(self, silo: SiloId) -> tuple[int, ...]:
        """The federation's class of each of a silo's own."""
        return self.label_sets.places[self.silos.index(silo)]


@dataclass(eq=False)
class EvaluationRequests:
    """The questions about one state of the student.

    Attributes:
        config: configuration of the run.
        student: student and silos.
        transport: transport to the silos, connected.
        run_dir: folder of the run.
        students: what was asked about all students of the run so far, `state` among it: the content of the file.
        state: what was asked about this one.
    """

    config: RunConfig
    student: JudgedStudent
    transport: SiloTransport
    run_dir: Path
    students: list[Evaluations]
    state: Evaluations
    _waiting: dict[SiloId, EvaluationQuery] = field(default_factory=dict, init=False)
    _tries: dict[SiloId, int] = field(default_factory=dict, init=False)
    _again_at: dict[SiloId, float] = field(default_factory=dict, init=False)

    def ask(self, weights: bytes, silos: Collection[SiloId]) -> None:
        """Asks those of some silos that have not said anything yet, and waits for at most `queries.deadline_s`.

        Args:
            weights: content of a safetensors file with the student's weights.
            silos: names of the silos.
        """
        for silo in (silo for silo in silos if silo not in self.state.answers):
            self.state.reasons.pop(silo, None)
            said, begun = self.student.descriptions.get(silo), silo in self.state.ids
            why = _why_not(said, begun, len(weights))
            if why is not None:
                self.state.reasons[silo] = why
            elif said is not None:
                self._waiting[silo] = self._query(silo, said, np.frombuffer(weights, np.uint8))
        write_evaluations(self.run_dir, self.students)  # the ids, before the first silo hears of one
        self.transport.send(self._waiting)
        deadline = time.monotonic() + self.config.queries.deadline_s
        while self._waiting and time.monotonic() < deadline:
            for reply in self.transport.receive(_LOOK_S):
                self._take(reply)
            due = [silo for silo, when in self._again_at.items() if when <= time.monotonic()]
            for silo in due:
                del self._again_at[silo]
                self.transport.send({silo: self._waiting[silo]})
        for silo in self._waiting:
            self.state.reasons.setdefault(silo, f"no answer within {self.config.queries.deadline_s:g} s")
        self._waiting.clear()
        write_evaluations(self.run_dir, self.students)

    def leave_out(self, reasons: Mapping[SiloId, str]) -> None:
        """Notes why silos are not asked.

        Args:
            reasons: reasons by the silo's name; not of those that an earlier attempt has asked.
        """
        self.state.reasons.update({silo: why for silo, why in reasons.items() if silo not in self.state.ids})

    def believed(self) -> dict[SiloId, EvaluationAnswer]:
        """Answers that nothing speaks against, by the silo's name."""
        return {silo: answer for silo, answer in self.state.answers.items() if self._reason(silo) is None}

    def entries(self) -> list[SiloEvaluation]:
        """An entry of the result for each silo."""
        return [silo_evaluation(silo, self.state.answers.get(silo), self._reason(silo)) for silo in self.student.silos]

    def _reason(self, silo: SiloId) -> str | None:
        answer, reason = self.state.answers.get(silo), self.state.reasons.get(silo)
        if answer is None or reason is not None:
            return reason
        said, classes = self.student.descriptions.get(silo), len(self.student.places_of(silo))
        return _fault(answer, None if said is None else said.evaluation, classes)

    @property
    def _classes(self) -> int:
        return self.student.label_sets.classes

    def _query(self, silo: SiloId, said: Description, weights: npt.NDArray[np.uint8]) -> EvaluationQuery:
        return EvaluationQuery(
            query_id=self.state.ids.setdefault(silo, uuid.uuid4().hex),
            architecture=self.config.student.architecture,
            width=self.config.student.width,
            classes=self._classes,
            image_shape=self.student.image_shape,
            outputs=self.student.places_of(silo),
            weights=weights,
            class_names=said.class_names,
            run=self.config.output.name,
        )

    def _take(self, reply: Reply) -> None:
        query, content = self._waiting.get(reply.silo), reply.content
        if query is None or content.query_id != query.query_id:  # a late answer to a query of the run
            return
        if isinstance(content, EvaluationAnswer):
            self.state.answers[reply.silo] = content
            del self._waiting[reply.silo]
            write_evaluations(self.run_dir, self.students)
            return
        again = isinstance(content, Lost) or (isinstance(content, Refusal) and content.code in _AGAIN)
        tries = self._tries[reply.silo] = self._tries.get(reply.silo, 0) + 1
        if again and tries < _TRIES:
            self._again_at[reply.silo] = time.monotonic() + 2.0 ** (tries - 1)
            return
        why = f"refused ({content.code.value})" if isinstance(content, Refusal) else "its reply cannot be read"
        if isinstance(content, Lost | Unreadable):
            why = printable(content.reason, LONGEST_REASON)
        self.state.reasons[reply.silo] = why
        del self._waiting[reply.silo]


def _why_not(said: Description | None, begun: bool, size: int) -> str | None:
    """Why a silo is not asked; None where it is.

    Args:
        said: description of the silo; None where it has not joined.
        begun: whether an earlier attempt has asked it: it may have been charged, and a replay is free.
        size: bytes of the student.
    """
    if said is None:
        return "it has not joined"
    if said.evaluation is None:
        return NOT_OFFERED
    if size > said.evaluation.max_bytes:
        return f"it takes students of at most {said.evaluation.max_bytes / 1e6:g} MB, this one has {size / 1e6:.3g} MB"
    if not said.evaluation.left and not begun:
        return USED_UP
    return None


def _fault(answer: EvaluationAnswer, offer: EvaluationOffer | None, classes: int) -> str | None:
    """Why a silo's numbers are not believed; None where nothing speaks against them.

    Args:
        answer: what the silo said.
        offer: what it offered; None where it did not, or has not joined again.
        classes: number of its own classes.
    """
    told = answer.per_class
    kept = (answer.sigma, answer.held_out, told is not None)
    if offer is not None and kept != (offer.sigma, offer.held_out, offer.per_class):
        return "its noise, its number of images or whether it tells of classes is another than it said before"
    noise = _SURE * answer.sigma
    if answer.right < -noise or (answer.held_out is not None and answer.right > answer.held_out + noise):
        return f"{answer.right} right images cannot be, even with its noise"
    if told is not None and not _fits(told, answer, classes, noise):
        return "its numbers class by class contradict one another, or the whole, even with its noise"
    return None


def _fits(told: PerClassCounts, answer: EvaluationAnswer, classes: int, noise: float) -> bool:
    """Whether the numbers class by class can be those of one set of images; a sum of n has sqrt(n) times the noise."""
    images, right = sum(told.images), sum(told.right)
    return (
        len(told.images) == classes
        and min(*told.images, *told.right, *told.predicted) >= -noise
        and all(
            r <= min(i, p) + noise * math.sqrt(2)
            for i, r, p in zip(told.images, told.right, told.predicted, strict=True)
        )
        and abs(right - answer.right) <= noise * math.sqrt(classes + 1)
        and sum(told.predicted) <= images + noise * math.sqrt(2 * classes)
        and (answer.held_out is None or abs(images - answer.held_out) <= noise * math.sqrt(classes))
    )
