# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation: after the final fit each silo that offers it says how many of its own images are right.

Where silos also tell their numbers class by class, the student's class biases are shifted by them, and the silos are
asked again: what they call better is kept (`logit_adjustment`).

Nothing here can stop or spoil a finished run: a silo that fails, lies or is late costs its own number, and the run ends
with those that came. A silo's number is its claim, see docs/threats.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from fedcpsc.config import RunConfig
from fedcpsc.distillation.evaluation_requests import (
    LONGEST_REASON,
    NOT_OFFERED,
    USED_UP,
    EvaluationRequests,
    JudgedStudent,
)
from fedcpsc.distillation.logit_adjustment import FIRST_STEP, LEAST, MOST, SiloCounts, class_biases, is_better, recall
from fedcpsc.distillation.transport import SiloId, SiloTransport
from fedcpsc.logs import fields
from fedcpsc.models.adapted import stored_tensors
from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.models.students import Start
from fedcpsc.printable import printable
from fedcpsc.protocol.evaluation import EvaluationAnswer
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.evaluation_words import adjustment_in_words
from fedcpsc.runs.evaluations import Evaluations, pooled, read_evaluations
from fedcpsc.runs.layout import EVALUATIONS_FILE
from fedcpsc.runs.result import FederatedEvaluation, LogitAdjustment

__all__ = ["evaluate_at_silos", "tell_of_evaluation", "why_no_silo_can_judge"]

log = logging.getLogger("fedcpsc.server")


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
    offers = [said.evaluation for said in descriptions.values() if said.evaluation is not None and said.evaluation.left]
    line = f"evaluation.at_silos: {len(offers)} of {len(descriptions)} silos offer to evaluate the student at the end"
    tries, by_class = config.evaluation.logit_adjustments, sum(offer.per_class for offer in offers)
    if tries and by_class:
        line += (
            f", {by_class} of them class by class: up to {tries + 1} evaluations each (evaluation.logit_adjustments)"
        )
    tell(line)


def evaluate_at_silos(
    config: RunConfig, student: JudgedStudent, transport: SiloTransport, run_dir: Path, tell: Callable[[str], None]
) -> FederatedEvaluation | None:
    """Asks every silo that offers it; None where the configuration does not ask for it.

    The student's class biases are other ones afterwards where the result has an adjustment with biases.

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
        with _undone_unless_kept(student.network) as (_, keep):
            found = _Evaluation(config, student, transport, run_dir, tell, read_evaluations(run_dir)).result()
            keep()
            return found
    except Exception as error:  # the student is fitted and paid for, whatever happens here
        log.exception("the silos could not be asked to evaluate the student", extra=fields(run=config.output.name))
        tell(f"evaluation.at_silos failed, and the run ends without it: {printable(str(error), LONGEST_REASON)}")
        return _without(f"it failed ({type(error).__name__})")


def _without(reason: str) -> FederatedEvaluation:
    return {"silos": [], "pooled": None, "reason": reason}


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """All questions of a run; `kept` is what the file of an earlier attempt holds, and what this one will."""

    config: RunConfig
    student: JudgedStudent
    transport: SiloTransport
    run_dir: Path
    tell: Callable[[str], None]
    kept: list[Evaluations]

    def result(self) -> FederatedEvaluation:
        voters = self._voters()
        first = self._asked(0, voters)
        if first is None:
            why = "an earlier fit of this student was sent to the silos, whose weights differ, and none is asked twice"
            self.tell(f"evaluation.at_silos: {why}; delete {EVALUATIONS_FILE} to ask anew, which is charged anew")
            return _without(why)
        made = self._adjusted(first, voters) if voters else _Adjusted(first, self._no_shift())
        made.judged.ask(self._weights(), [silo for silo in self.student.silos if silo not in voters])
        entries = made.judged.entries()
        found: FederatedEvaluation = {"silos": entries, "pooled": pooled(entries), "reason": None}
        if counts := self._counts(made.judged, self.student.silos):
            found["recall"] = recall(counts)
        if made.shifts or self._counts(first, voters):
            found["adjustment"] = self._told(first, made)
        for entry in entries:
            if entry["reason"] is not None and entry["reason"] != NOT_OFFERED:
                self.tell(f"{entry['id']} has not evaluated the student: {entry['reason']}")
        if line := adjustment_in_words(found):
            self.tell(f"evaluation.at_silos: {line}")
        return found

    def _told(self, first: EvaluationRequests, made: _Adjusted) -> LogitAdjustment:
        both = first.believed().keys() & made.judged.believed().keys()
        before, after = (
            pooled([entry for entry in asked.entries() if entry["id"] in both]) for asked in (first, made.judged)
        )
        return {
            "biases": [round(float(bias), 4) for bias in made.biases] if made.shifts else None,
            "shifts": made.shifts,
            "before": before,
            "after": after,
            "accuracy_before": self.student.accuracy,
            "reason": made.reason,
        }

    def _adjusted(self, first: EvaluationRequests, voters: Collection[SiloId]) -> _Adjusted:
        """Shifts the student's class biases, asks about it, and keeps what the silos call better."""
        made, step = _Adjusted(first, self._no_shift()), FIRST_STEP
        try:
            for number in range(1, self.config.evaluation.logit_adjustments + 1):
                counts, left_out = self._counts(made.judged, voters), self._left_out(made.judged, voters)
                able = [silo for silo in voters if silo not in left_out]
                if not counts or (not able and number == len(self.kept)):
                    made.reason = "no silo has an evaluation left to try others with"
                    break
                whole = np.clip(made.biases + class_biases(counts, step), -MOST, MOST)
                shift = whole - made.biases
                if np.abs(shift).max() < LEAST:
                    made.reason = "it says each class about as often as the silos' images have it"
                    break
                with _undone_unless_kept(self.student.network) as (bias, keep):
                    bias.add_(torch.from_numpy(shift).to(bias))
                    later = self._asked(number, able)
                    if later is None:
                        made.reason = "an earlier attempt at this run has tried others, and no silo is asked twice"
                        break
                    later.leave_out(left_out)
                    if is_better(self._heard(made.judged, voters), self._heard(later, voters)):
                        keep()
                        made = _Adjusted(later, whole, made.shifts + 1)
                    else:
                        step /= 2
                        made.reason = "the silos did not call more images right with others"
        except Exception as error:  # what the silos have said of the student as it is stands
            log.exception("other class biases could not be tried", extra=fields(run=self.config.output.name))
            made.reason = f"it failed ({type(error).__name__})"
        return made

    def _voters(self) -> list[SiloId]:
        """Silos that may move the student: they tell their counts class by class, and nothing speaks against them.

        All others are asked once, about the student as it is at last.
        """
        if not self.config.evaluation.logit_adjustments:
            return []
        offers = {silo: said.evaluation for silo, said in self.student.descriptions.items()}
        told = {silo for silo, offer in offers.items() if offer is not None and offer.per_class}
        return [silo for silo in self.student.silos if silo in told - self.student.suspected]

    def _asked(self, number: int, silos: Collection[SiloId]) -> EvaluationRequests | None:
        """Asks about the student as it is now; None where an earlier attempt has asked about another one."""
        weights = self._weights()
        digest = hashlib.sha256(weights).hexdigest()
        if number == len(self.kept):
            self.kept.append(Evaluations(digest))
        state = self.kept[number]
        if state.student != digest:
            return None
        requests = EvaluationRequests(self.config, self.student, self.transport, self.run_dir, self.kept, state)
        if number == len(self.kept) - 1:  # what came next was made of the answers that were there then
            requests.ask(weights, silos)
        return requests

    def _weights(self) -> bytes:
        return save(stored_tensors(self.student.network))

    def _no_shift(self) -> npt.NDArray[np.float64]:
        return np.zeros(self.student.label_sets.classes)

    def _heard(self, asked: EvaluationRequests, silos: Collection[SiloId]) -> dict[SiloId, EvaluationAnswer]:
        return {silo: answer for silo, answer in asked.believed().items() if silo in silos}

    def _counts(self, asked: EvaluationRequests, silos: Collection[SiloId]) -> list[SiloCounts]:
        """What some silos tell class by class."""
        classes = self.student.label_sets.classes
        heard = self._heard(asked, silos).items()
        found = [SiloCounts.of(answer, self.student.places_of(silo), classes) for silo, answer in heard]
        return [counts for counts in found if counts is not None]

    def _left_out(self, asked: EvaluationRequests, silos: Collection[SiloId]) -> dict[SiloId, str]:
        """Why some silos are not asked once more, by name: they gave no number, or have no evaluation left."""
        found = {}
        for entry in (entry for entry in asked.entries() if entry["id"] in silos):
            left = [one.answers[entry["id"]].evaluations_left for one in self.kept if entry["id"] in one.answers]
            if entry["reason"] is not None or not min(left, default=0):
                found[entry["id"]] = entry["reason"] or USED_UP
        return found


@dataclass(eq=False)
class _Adjusted:
    """What came of the shifts so far.

    Attributes:
        judged: questions about the student as it is.
        biases: what was added to its class biases, [K].
        shifts: number of shifts that were kept.
        reason: reason why the last was not kept, or no more were tried; None where nothing was in the way.
    """

    judged: EvaluationRequests
    biases: npt.NDArray[np.float64]
    shifts: int = 0
    reason: str | None = None


@contextmanager
def _undone_unless_kept(network: Classifier) -> Iterator[tuple[Tensor, Callable[[], None]]]:
    """The biases of a network's head, [K], to be changed in place, and a function by which the change is kept."""
    if not isinstance(network, HeadedClassifier):  # whatever else is fitted, no silo can judge
        raise TypeError(type(network).__name__)
    bias, kept = network.head.bias.detach(), False
    before = bias.clone()

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        yield bias, keep
    finally:
        if not kept:
            bias.copy_(before)
