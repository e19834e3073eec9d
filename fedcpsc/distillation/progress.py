# SPDX-License-Identifier: Apache-2.0
"""How far a run is: one line a round and one a part of the final fit, with the student's accuracy where it is due.

When it is due follows from counted work, never from a clock: every machine, and a resumed run, has the same curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.belief import describe_beliefs, why_not_judged
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.silo_state import SiloState
from fedcpsc.distillation.transport import SiloId
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.metrics import MetricsLine, SiloLine
from fedcpsc.runs.suspicion import SuspicionWatch

__all__ = ["Progress", "ProgressReporter", "rounds_between"]

Progress: TypeAlias = Callable[[MetricsLine], None]

_EVALUATION_SHARE = 0.05  # of a run's work, at most
_AFTER_EACH = 1000  # held-out images of which an evaluation is quick whatever the run
_STEP_PASSES = 3  # an optimiser step costs some three passes of its images: one forward, two backward


@dataclass
class ProgressReporter:
    """Tells of a run's progress, and of silos that are suspected now and were not before.

    Attributes:
        fitted: committee and bank of the run.
        rounds: number of all rounds, >= 1.
        silos: state of each silo, by its name.
        evaluation: held-out images, which are measured on and never fitted to; None where there are none.
        progress: function called with one line for each round and for each part of the final fit.
        tell: function called with one line for each event an operator should know.
        asking: whether silos are asked; else their answers are those of earlier runs, and are told round by round.
        turned_away: reasons why silos were not let in, by name.
        predicted: classes that the finished student gave the held-out images, int64 [N]; None before the last line.
    """

    fitted: BankFit
    rounds: int
    silos: Mapping[SiloId, SiloState]
    evaluation: ImageSet | None
    progress: Progress
    tell: Callable[[str], None]
    asking: bool = True
    turned_away: Mapping[str, str] = field(default_factory=dict)
    predicted: npt.NDArray[np.int64] | None = field(default=None, init=False)
    _suspicions: SuspicionWatch = field(default_factory=SuspicionWatch)

    @property
    def accuracy(self) -> float | None:
        """The finished student's accuracy on the held-out images, in [0, 1]; None where there are none."""
        if self.evaluation is None:
            return None
        if self.predicted is None:  # a final fit of no steps has no last line
            batch_size = self.fitted.plan.config.evaluation.batch_size
            self.predicted = predicted_classes(self.fitted.student.network, self.evaluation, batch_size)
        return accuracy(self.predicted, self.evaluation)

    def report(self, group: range, phase: Literal["round", "final"], final_steps_done: int = 0) -> None:
        """Measures the student where that is due, and passes on one line of progress.

        Args:
            group: rounds that the line is about; the last of them is done.
            phase: part of the run that the line describes.
            final_steps_done: number of steps of the final fit that are done, >= 0.
        """
        fitted, config = self.fitted, self.fitted.plan.config
        with fitted.timeline.span("evaluation", group.stop):
            line = self._line(phase, group.stop, final_steps_done)
            finished = phase == "final" and final_steps_done >= config.final_steps
            if self.evaluation is not None and (finished or (phase == "round" and self._is_due(group))):
                predicted = predicted_classes(fitted.student.network, self.evaluation, config.evaluation.batch_size)
                line["student_accuracy"] = accuracy(predicted, self.evaluation)
                self.predicted = predicted if finished else None
            self.progress(line)
        self._tell_of_suspicions()

    def _is_due(self, group: range) -> bool:
        """Whether the student is evaluated after these rounds, see `evaluation.every`."""
        config, images = self.fitted.plan.config, 0 if self.evaluation is None else len(self.evaluation)
        every = config.evaluation.every
        if every is None:
            of_all = config.student.committee, 2 * config.synthesis.steps  # a refit is measured where its run was
            steps = self.fitted.plan.steps_before(self.rounds, *of_all) + config.final_steps
            passes = steps * config.student.batch_size * _STEP_PASSES
            every = rounds_between(self.rounds, images, passes)
        return any((r + 1) % every == 0 for r in group)

    def _line(self, phase: Literal["round", "final"], rounds_done: int, final_steps_done: int) -> MetricsLine:
        """All but accuracies. The share of the work that is done is counted in optimiser steps."""
        fitted, plan = self.fitted, self.fitted.plan
        bank, config, timeline = fitted.bank, plan.config, fitted.timeline
        of_earlier = not self.asking or (phase == "round" and rounds_done < plan.inherited)
        before = rounds_done if of_earlier else None
        counted = len(fitted.committee), 2 * config.synthesis.steps if self.asking else 0
        total = plan.steps_before(self.rounds, *counted) + config.final_steps
        done = (plan.steps_before(rounds_done, *counted) + final_steps_done) / total
        seconds = timeline.now
        line: MetricsLine = {
            "phase": phase,
            "round": rounds_done,
            "rounds": self.rounds,
            "bank": sum(batch.count for batch in bank.batches_before(before)),
            "answers_used": max(bank.answers_of(silo, before) for silo in bank.silos),
            "answers_budget": config.queries.answers_per_silo,
            "entropy": round(fitted.entropy, 4),
            "alarm": fitted.entropy < config.output.alarm_entropy,
            "seconds": round(seconds, 2),
            "waiting_s": round(timeline.waited_s, 2),
            "share_done": done,
            "seconds_left": round(seconds * (1 / max(done, 1e-6) - 1), 1),
        }
        if self.asking:
            line["active_silos"] = sum(not state.left for state in self.silos.values())
        if phase == "round":
            standing = fitted.targets.standing
            line["silos"] = _silo_lines(bank, self.silos, standing, before)
            line["not_judged"] = why_not_judged(config.aggregation, len(bank.silos), standing)
            if self.turned_away:
                line["turned_away"] = dict(self.turned_away)
        return line

    def _tell_of_suspicions(self) -> None:
        standing, silos = self.fitted.targets.standing, self.fitted.bank.silos
        beliefs = [] if standing is None else list(zip(silos, describe_beliefs(standing), strict=True))
        arisen, gone = self._suspicions.changes({silo: why for silo, told in beliefs if (why := told["suspicion"])})
        for line in arisen + gone:
            self.tell(line)


def rounds_between(rounds: int, images: int, passes: int) -> int:
    """Number of rounds from one evaluation to the next, >= 1, where the configuration names none.

    Evaluations, the last one after the final fit counted in, take at most `_EVALUATION_SHARE` of the run's work, but
    one is made after the last round in any case.

    Args:
        rounds: number of rounds of the run, >= 1.
        images: number of held-out images.
        passes: work of the run, in images that pass through a network.
    """
    if images <= _AFTER_EACH:
        return 1
    affordable = int(_EVALUATION_SHARE * passes / images) - 1
    return min(rounds, -(-rounds // max(1, affordable)))


def _silo_lines(
    bank: AnswerBank, states: Mapping[SiloId, SiloState], standing: Standing | None, before: int | None
) -> dict[str, SiloLine]:
    lines: dict[str, SiloLine] = {
        silo: {
            "answers": bank.answers_of(silo, before),
            "answers_left": states[silo].answers_left,
            "stopped": states[silo].left or None,
        }
        for silo in bank.silos
    }
    if standing is not None:
        for silo, belief in zip(bank.silos, describe_beliefs(standing), strict=True):
            lines[silo] = {**lines[silo], **belief}
    return lines
