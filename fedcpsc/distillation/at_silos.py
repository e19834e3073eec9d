# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation: after the final fit each silo that offers it says how many of its own images are right.

Nothing here can stop or spoil a finished run: a silo that fails, lies or is late costs its own number, and the run ends
with those that came. A silo's number is its claim, see docs/threats.md.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.torch import save

from fedcpsc.config import RunConfig
from fedcpsc.distillation.transport import Lost, Reply, SiloId, SiloTransport, Unreadable
from fedcpsc.errors import RefusalCode
from fedcpsc.label_sets import LabelSets
from fedcpsc.logs import fields
from fedcpsc.models.adapted import stored_tensors
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.students import Start
from fedcpsc.printable import printable
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, EvaluationQuery
from fedcpsc.protocol.messages import Description, Refusal
from fedcpsc.runs.evaluations import Evaluations, pooled, read_evaluations, silo_evaluation, write_evaluations
from fedcpsc.runs.layout import EVALUATIONS_FILE
from fedcpsc.runs.result import FederatedEvaluation

__all__ = ["JudgedStudent", "evaluate_at_silos", "tell_of_evaluation", "why_no_silo_can_judge"]

log = logging.getLogger("fedcpsc.server")

_LOOK_S = 0.2
_TRIES = 4
_LONGEST = 300  # characters of a reason
_SURE = 12.0  # standard deviations of noise beyond which no honest number lies
_AGAIN = frozenset({RefusalCode.BUSY, RefusalCode.INTERNAL, RefusalCode.OUT_OF_SERVICE})
_NOT_OFFERED = "it offers none"


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
    """

    network: Classifier
    start: Start
    label_sets: LabelSets
    image_shape: tuple[int, int, int]
    silos: tuple[SiloId, ...]
    descriptions: Mapping[SiloId, Description]


def why_no_silo_can_judge(config: RunConfig, start: Start) -> str | None:
    """Why a student cannot be sent to a silo; None where it can.

    Args:
        config: configuration of the run.
        start: what the student begins as.
    """
    student = config.student
    if start.own is not None:
        return f"{start.own.name} is a module of the caller's own, and no code is sent to a silo"
    if "/" in student.architecture:
        return f"{student.architecture} is a network of a library, and silos rebuild those of this project alone"
    if student.normalisation is not None:
        return "student.normalisation is part of the student, and silos rebuild networks without it"
    return None


def tell_of_evaluation(
    config: RunConfig, start: Start, descriptions: Mapping[SiloId, Description], tell: Callable[[str], None]
) -> None:
    """Tells, before anything is asked, who will evaluate the student, or why nobody can; nothing where nobody is to.

    Args:
        config: configuration of the run.
        start: what the student begins as.
        descriptions: descriptions of the silos that have joined.
        tell: function called with one line.
    """
    if not config.evaluation.at_silos:
        return
    why = why_no_silo_can_judge(config, start)
    if why is not None:
        tell(f"evaluation.at_silos: no silo will evaluate the student: {why}")
        return
    offering = [silo for silo, said in descriptions.items() if said.evaluation is not None and said.evaluation.left]
    tell(f"evaluation.at_silos: {len(offering)} of {len(descriptions)} silos offer to evaluate the student at the end")


def evaluate_at_silos(
    config: RunConfig, student: JudgedStudent, transport: SiloTransport, run_dir: Path, tell: Callable[[str], None]
) -> FederatedEvaluation | None:
    """Asks every silo that offers it, once; None where the configuration does not ask for it.

    A run that is gone on with asks under the ids of its earlier attempt, and takes over the numbers that came then: no
    silo charges twice. Where the student is not the same to the bit, nobody is asked again, and the result says so.

    Args:
        config: configuration of the run.
        student: student and silos.
        transport: transport to the silos, connected.
        run_dir: folder of the run.
        tell: function called with one line for each event an operator should know.
    """
    if not config.evaluation.at_silos:
        return None
    why = why_no_silo_can_judge(config, student.start)
    if why is not None:
        return _without(why)
    try:
        weights = save(stored_tensors(student.network))
        digest = hashlib.sha256(weights).hexdigest()
        kept = read_evaluations(run_dir)
        if kept is not None and kept.student != digest:
            why = "an earlier fit of this student was sent to the silos, whose weights differ, and none is asked twice"
            tell(f"evaluation.at_silos: {why}; delete {EVALUATIONS_FILE} to ask anew, which is charged anew")
            return _without(why)
        asking = _Asking(config, student, transport, run_dir, kept or Evaluations(digest))
        asking.ask(np.frombuffer(weights, np.uint8))
        return asking.result(tell)
    except Exception as error:  # the student is fitted and paid for, whatever happens here
        log.exception("the silos could not be asked to evaluate the student", extra=fields(run=config.output.name))
        tell(f"evaluation.at_silos failed, and the run ends without it: {printable(str(error), _LONGEST)}")
        return _without(f"it failed ({type(error).__name__})")


def _without(reason: str) -> FederatedEvaluation:
    return {"silos": [], "pooled": None, "reason": reason}


@dataclass(eq=False)
class _Asking:
    """The questions under way."""

    config: RunConfig
    student: JudgedStudent
    transport: SiloTransport
    run_dir: Path
    state: Evaluations
    waiting: dict[SiloId, EvaluationQuery] = field(default_factory=dict)
    tries: dict[SiloId, int] = field(default_factory=dict)
    again_at: dict[SiloId, float] = field(default_factory=dict)

    def ask(self, weights: np.ndarray) -> None:
        """Asks whoever has not said anything yet, and waits for at most `queries.deadline_s`."""
        self.state.reasons.clear()
        for place, silo in enumerate(self.student.silos):
            said, taken = self.student.descriptions.get(silo), silo in self.state.answers
            why = None if taken else _why_not(said, silo in self.state.ids, len(weights))
            if why is not None:
                self.state.reasons[silo] = why
            if why is None and not taken and said is not None:
                self.waiting[silo] = self._query(silo, place, said, weights)
        write_evaluations(self.run_dir, self.state)  # the ids, before the first silo hears of one
        self.transport.send(self.waiting)
        deadline = time.monotonic() + self.config.queries.deadline_s
        while self.waiting and time.monotonic() < deadline:
            for reply in self.transport.receive(_LOOK_S):
                self._take(reply)
            due = [silo for silo, when in self.again_at.items() if when <= time.monotonic()]
            for silo in due:
                del self.again_at[silo]
                self.transport.send({silo: self.waiting[silo]})
        for silo in self.waiting:
            self.state.reasons.setdefault(silo, f"no answer within {self.config.queries.deadline_s:g} s")
        write_evaluations(self.run_dir, self.state)

    def result(self, tell: Callable[[str], None]) -> FederatedEvaluation:
        """What came of it; each silo without a number is told of."""
        entries = []
        for silo in self.student.silos:
            answer, reason = self.state.answers.get(silo), self.state.reasons.get(silo)
            said = self.student.descriptions.get(silo)
            if answer is not None and reason is None:
                reason = _fault(answer, None if said is None else said.evaluation)
            if reason is not None and reason != _NOT_OFFERED:
                tell(f"{silo} has not evaluated the student: {reason}")
            entries.append(silo_evaluation(silo, answer, reason))
        return {"silos": entries, "pooled": pooled(entries), "reason": None}

    def _query(self, silo: SiloId, place: int, said: Description, weights: np.ndarray) -> EvaluationQuery:
        config, label_sets = self.config, self.student.label_sets
        return EvaluationQuery(
            query_id=self.state.ids.setdefault(silo, uuid.uuid4().hex),
            architecture=config.student.architecture,
            width=config.student.width,
            classes=label_sets.classes,
            image_shape=self.student.image_shape,
            outputs=label_sets.places[place],
            weights=weights,
            class_names=said.class_names,
            run=config.output.name,
        )

    def _take(self, reply: Reply) -> None:
        query, content = self.waiting.get(reply.silo), reply.content
        if query is None or content.query_id != query.query_id:  # a late answer to a query of the run
            return
        if isinstance(content, EvaluationAnswer):
            self.state.answers[reply.silo] = content
            del self.waiting[reply.silo]
            write_evaluations(self.run_dir, self.state)
            return
        again = isinstance(content, Lost) or (isinstance(content, Refusal) and content.code in _AGAIN)
        tries = self.tries[reply.silo] = self.tries.get(reply.silo, 0) + 1
        if again and tries < _TRIES:
            self.again_at[reply.silo] = time.monotonic() + 2.0 ** (tries - 1)
            return
        why = f"refused ({content.code.value})" if isinstance(content, Refusal) else "its reply cannot be read"
        if isinstance(content, Lost | Unreadable):
            why = printable(content.reason, _LONGEST)
        self.state.reasons[reply.silo] = why
        del self.waiting[reply.silo]


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
        return _NOT_OFFERED
    if size > said.evaluation.max_bytes:
        return f"it takes students of at most {said.evaluation.max_bytes / 1e6:g} MB, this one has {size / 1e6:.3g} MB"
    if not said.evaluation.left and not begun:
        return "its evaluations are used up"
    return None


def _fault(answer: EvaluationAnswer, offer: EvaluationOffer | None) -> str | None:
    """Why a number is not believed; None where nothing speaks against it.

    Args:
        answer: what the silo said.
        offer: what it offered; None where it did not, or has not joined again.
    """
    if offer is not None and (answer.sigma, answer.held_out) != (offer.sigma, offer.held_out):
        return "its noise or its number of images is another than it said before"
    noise = _SURE * answer.sigma
    if answer.right < -noise or (answer.held_out is not None and answer.right > answer.held_out + noise):
        return f"{answer.right} right images cannot be, even with its noise"
    return None
