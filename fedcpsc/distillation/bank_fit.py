# SPDX-License-Identifier: Apache-2.0
"""The committee, and its fit to the bank: round by round, and at last, of the student alone, to all of it.

Everything random follows from the seed and the numbers of round and step; what may be seen follows from the rounds'
numbers. So the same answers under the same configuration give the same networks, weight by weight: in the run that
asked for them, where it was cut and resumed, and where they are fitted to anew. No member depends on its fellows but
through the images that they helped to choose: to fit the student anew takes the student alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.distillation.fitting import Fit
from fedcpsc.distillation.pretraining import pretrain
from fedcpsc.distillation.round_schedule import RoundSchedule
from fedcpsc.distillation.steps import BankReader, Member, check_finite, make_committee
from fedcpsc.distillation.targets import TargetKeeper, class_entropy
from fedcpsc.distillation.tones import tones_of_round
from fedcpsc.models.students import Start
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import Timeline
from fedcpsc.seeding import derive_seed

__all__ = ["BankFit", "Rows"]

Rows = npt.NDArray[np.int64]

_FINAL_CHUNKS = 20  # progress lines of the final fit
_PRETRAINING_LINES = 4  # progress lines of the pre-training
_FIT_CHUNK = 10  # steps between two looks for replies
_NO_ROWS = np.zeros(0, np.int64)


class BankFit:
    """The committee, as far as it is fitted.

    Args:
        plan: rounds of the run, with its configuration.
        bank: answer bank that is fitted to.
        targets: keeper of the bank's soft targets.
        timeline: clock of the run, which also records what was done when.
        fit: function that does the optimiser steps.
        device: device of the networks.
        networks: number of networks; the first is the student.
        meanwhile: function called every few steps of a round's fit.
        start: what the student begins as; None for what the configuration alone says.

    Attributes:
        committee: networks that are fitted to the answers; the first is the student.
        start: what the student begins as.
        entropy: entropy of the classes that the silos see in the images, in [0, 1].
    """

    def __init__(
        self,
        plan: RoundPlan,
        bank: AnswerBank,
        targets: TargetKeeper,
        timeline: Timeline,
        *,
        fit: Fit,
        device: torch.device,
        networks: int,
        meanwhile: Callable[[], None] = lambda: None,
        start: Start | None = None,
    ) -> None:
        self.plan, self.bank, self.targets, self.timeline = plan, bank, targets, timeline
        self.device, self.start = device, start or Start()
        self._config, self._fit, self._networks, self._meanwhile = plan.config, fit, networks, meanwhile
        self._reader = BankReader(bank, device)
        self.committee: list[Member] = self._new_committee()
        self.entropy = 1.0

    @property
    def student(self) -> Member:
        """The committee's first member."""
        return self.committee[0]

    @property
    def suspected(self) -> frozenset[str]:
        """Names of the silos that something speaks against, where silos are judged by their answers."""
        standing = self.targets.standing
        if standing is None:
            return frozenset()
        return frozenset(silo for silo, why in zip(self.bank.silos, standing.suspicions(), strict=True) if why)

    def begin_anew(self) -> None:
        """Puts a new committee, fitted to nothing, in the place of the old one."""
        self.committee = self._new_committee()

    def pretrain(self, tell: Callable[[str], None]) -> None:
        """Pre-trains the student, which knows no answers yet, on images of the priors.

        Args:
            tell: function called with a line when it begins, and some more while it lasts.

        Raises:
            RunError: it diverges.
        """
        config, steps = self._config, self._config.student.pretraining_steps
        if steps == 0:
            return
        tell(f"the student is pre-trained on images of the priors, in {steps:,} steps")

        def meanwhile(done: int) -> None:
            self._meanwhile()
            if done < steps and done % max(1, steps // _PRETRAINING_LINES) == 0:
                tell(f"pre-training: {done:,} of {steps:,} steps")

        with self.timeline.span("pretraining", 0):
            losses = pretrain(
                self.student.network, steps, config.synthesis, seed=derive_seed(config.seed, "pretraining"),
                device=self.device, precision=config.student.precision, flip=config.student.flip,
                tones=tones_of_round(self.plan, 0, None), meanwhile=meanwhile,
            )  # fmt: skip
        check_finite([losses], "loss of the pre-training")

    def fit_rounds(self, group: range, schedule: RoundSchedule) -> None:
        """Fits every member as often as the group has rounds, on the answers that may be used while it is asked about.

        Args:
            group: rounds of the group.
            schedule: round groups before it.

        Raises:
            RunError: the fit diverges.
        """
        self._reader.refresh()
        with self.timeline.span("fit", group.stop):
            for round_index in group:
                self._fit_round(round_index, schedule)

    def aggregate(self, before: int) -> Rows:
        """Brings the targets up to date with the answers to the rounds before `before`; returns the answered rows."""
        with self.timeline.span("targets", before):
            self.targets.refresh(before)
        return self.bank.answered_rows(range(before))

    def measure(self, answered: Rows) -> None:
        """Notes how evenly the answers name the classes.

        Args:
            answered: rows that were answered, at least one.
        """
        self.entropy = class_entropy(self.bank.targets[answered])

    def fit_student_to_all(
        self, schedule: RoundSchedule, collect: Callable[[int], Rows], report: Callable[[int], None]
    ) -> None:
        """The final fit: the student alone, on the whole bank, with the learning rate falling to zero.

        Answers still outstanding are waited for one group after the other, at steps fixed beforehand.

        Args:
            schedule: round groups of the run.
            collect: function that gives the answered rows of the rounds before a number, with their targets up to date.
            report: function called with the number of steps done after each part of the fit.

        Raises:
            RunError: the fit diverges.
        """
        config, total = self._config.student, self._config.final_steps
        average = copy.deepcopy(self.student.network) if config.average > 0 else None
        chunk = max(1, -(-total // _FINAL_CHUNKS))
        for done in range(0, total, chunk):
            steps = min(chunk, total - done)
            pool = collect(schedule.seen_by(done, total))
            self._reader.refresh()
            with self.timeline.span("final", schedule.asked):
                losses = self._fit(
                    self.student, config, self._reader, pool, _NO_ROWS, steps,
                    derive_seed(self._config.seed, "final", done), cosine_from=(done, total), average=average,
                )  # fmt: skip
            check_finite([losses], "loss in the final fit")
            if average is not None and done + steps == total:
                self.student.network.load_state_dict(average.state_dict())
            report(done + steps)
        collect(schedule.asked)  # a final fit of no steps has waited for nothing

    def _fit_round(self, round_index: int, schedule: RoundSchedule) -> None:
        config, total = self._config.student, self.plan.steps_of(round_index)
        pool = self.bank.answered_rows(range(schedule.seen))
        newest = self.bank.answered_rows(schedule.newest)
        for index, member in enumerate(self.committee if len(pool) else ()):
            share = config.fresh_share if index == 0 else 0.0  # its fellows see the bank evenly, and so differ
            for done in range(0, total, _FIT_CHUNK):
                steps = min(_FIT_CHUNK, total - done)
                seed = derive_seed(self._config.seed, "fit", round_index, index, done)
                losses = self._fit(member, config, self._reader, pool, newest, steps, seed, fresh_share=share)
                self._meanwhile()
            check_finite([losses], f"loss in round {round_index + 1}")

    def _new_committee(self) -> list[Member]:
        student, bank = self._config.student.model_copy(update={"committee": self._networks}), self.bank
        return make_committee(student, bank.classes, bank.image_shape, self._config.seed, self.device, self.start)
