# SPDX-License-Identifier: Apache-2.0
"""The round loop: make images -> ask the silos -> fit to the bank while they work -> store answers -> checkpoint.

Rounds are asked in groups. A group is one round unless the silos are slow; `round_schedule.py` says which answers
it uses. Rounds whose images another run made come first: of them, only what is missing is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.data.images import ImageSet
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation.bank_fit import BankFit, Rows
from fedcpsc.distillation.checkpoint import load_checkpoint, save_checkpoint
from fedcpsc.distillation.fitting import Fit
from fedcpsc.distillation.progress import Progress, ProgressReporter
from fedcpsc.distillation.query_images import QueryImages
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.distillation.round_schedule import OverlapPolicy, RoundSchedule, next_size
from fedcpsc.distillation.synthesis import make_generator
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.errors import FederationError, explain
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.students import Start
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import Timeline

__all__ = ["RoundLoop"]


class RoundLoop:
    """The rounds of a run and its final fit, whose product is the student.

    Args:
        plan: rounds of the run, with its configuration.
        bank: answer bank that images and answers are kept in.
        scheduler: schedule of the queries to the silos.
        targets: keeper of the bank's soft targets.
        timeline: clock of the run, which also records what was done when.
        fit: function that does the optimiser steps.
        device: device of the networks.
        folder: folder of the checkpoint.
        evaluation: held-out images, which are measured on and never fitted to; None where there are none.
        progress: function called with one line for each round and for each part of the final fit.
        tell: function called with one line for each event an operator should know.
        turned_away: reasons why silos were not let in, by name.
        public: the server's own pictures, a source of query images; None: it has none.
        start: what the student begins as; None for what the configuration alone says.

    Attributes:
        fitted: committee of the run, as far as it is fitted.
        generator: last generator that was trained; None before the first.
        schedule: round groups so far, and the size of the next group.
    """

    def __init__(
        self,
        plan: RoundPlan,
        bank: AnswerBank,
        scheduler: QueryScheduler,
        targets: TargetKeeper,
        timeline: Timeline,
        *,
        fit: Fit,
        device: torch.device,
        folder: Path,
        evaluation: ImageSet | None,
        progress: Progress,
        tell: Callable[[str], None] = lambda line: None,
        turned_away: Mapping[str, str] | None = None,
        public: PublicPictures | None = None,
        start: Start | None = None,
    ) -> None:
        self.plan, self.config, self.bank, self.scheduler = plan, plan.config, bank, scheduler
        self.timeline, self._folder, self._tell = timeline, folder, tell
        self._images = QueryImages(plan, bank, scheduler.images_per_batch, device, public, tell)
        self.fitted = BankFit(
            plan,
            bank,
            targets,
            timeline,
            fit=fit,
            device=device,
            networks=self.config.student.committee,
            meanwhile=scheduler.process_replies,
            start=start,
        )
        self._reporter = ProgressReporter(
            self.fitted, plan.rounds, scheduler.silos, evaluation, progress, tell, turned_away=dict(turned_away or {})
        )
        self.generator: ConditionalGenerator | None = None
        self.schedule = RoundSchedule(OverlapPolicy.of(self.config.queries).max_outstanding)

    @property
    def predicted(self) -> npt.NDArray[np.int64] | None:
        """Classes that the finished student gave the held-out images, int64 [N]; None where it was not asked."""
        return self._reporter.predicted

    @property
    def accuracy(self) -> float | None:
        """The finished student's accuracy on the held-out images, in [0, 1]; None where there are none."""
        return self._reporter.accuracy

    @property
    def seconds(self) -> float:
        """Seconds spent on the run, earlier attempts counted in."""
        return self.timeline.now

    def run(self) -> None:
        """Runs, or goes on with, all rounds and the final fit.

        Raises:
            FederationError: no silo has answered anything.
            RunError: the checkpoint is damaged, or cannot be written, or the fit diverges.
        """
        fitted = self.fitted
        self._resume()
        if self.schedule.asked == 0:
            fitted.pretrain(self._tell)
        while self.schedule.asked < self.plan.rounds:
            group = self._next_group()
            begun_s, waited_s = self.seconds, self.timeline.waited_s
            fitted.targets.refresh(self.schedule.seen)
            self._ask_about_new_images(group)
            fitted.fit_rounds(group, self.schedule)  # on earlier answers, while the silos work
            self.schedule = self.schedule.after(group)
            fitted.measure(self._collect(self.schedule.seen))
            work_s = self.seconds - begun_s - (self.timeline.waited_s - waited_s)
            self.schedule = replace(self.schedule, size=self._next_size(work_s / len(group)))
            self._save_checkpoint(group)
            self._reporter.report(group, "round")
            if not self.scheduler.active and self.schedule.asked >= self.plan.inherited:
                break  # every budget is spent: what is banked is what there is
        self._fit_student_to_all_answers()

    def report_once_more(self) -> None:
        """Measures the finished student anew, whose class biases have changed, and tells of it."""
        last = range(self.plan.rounds - 1, self.plan.rounds)
        self._reporter.report(last, "final", final_steps_done=self.config.final_steps)

    def _resume(self) -> None:
        """Goes on from the checkpoint, where there is one, and asks again what a crash left unanswered."""
        fitted = self.fitted
        found = load_checkpoint(self._folder, fitted.committee, fitted.device)
        self.schedule = replace(self.schedule, ends=found.ends, size=found.size)
        self.timeline.at_least(found.seconds)
        if found.generator is not None:
            untrained = make_generator(self.config.synthesis, self.bank.classes, self.bank.image_shape, seed=0)
            self.generator = untrained.to(fitted.device)
            self.generator.load_state_dict(found.generator)
        self.scheduler.expect_nothing_of(found.missed)
        known = max(self.schedule.asked, self.plan.inherited)
        self.scheduler.ask([batch for batch in self.bank.batches if batch.round < known])
        if found.ends and found.excluded != set(self.config.aggregation.exclude):
            self._fit_anew()

    def _fit_anew(self) -> None:
        """Fits a new committee as often as the one that knew answers of other silos (`aggregation.exclude`)."""
        self._tell("aggregation.exclude is not what it was: the student is fitted anew to the answers that remain")
        self.fitted.begin_anew()
        self.fitted.pretrain(self._tell)
        self.fitted.aggregate(self.schedule.seen)
        self.fitted.fit_rounds(range(self.schedule.asked), self.schedule)

    def _next_group(self) -> range:
        """The next round group: as it was asked about where it is inherited, else of the size that suits the silos."""
        asked = self.schedule.asked
        inherited = next((end for end in self.plan.ends if end > asked), None)
        return self.schedule.next_group(self.plan.rounds) if inherited is None else range(asked, inherited)

    def _ask_about_new_images(self, group: range) -> None:
        """Makes the group's images, commits them to the bank and sends them to the silos; inherited ones are there."""
        if group.stop <= self.plan.inherited:
            return
        with self.timeline.span("synthesis", group.stop):
            networks = [member.network for member in self.fitted.committee]
            made = self._images.make(group, networks, self.schedule.seen)
        self.generator = made.generator or self.generator
        self.scheduler.ask(made.batches, made.recipes)

    def _collect(self, before: int) -> Rows:
        """Waits for the answers to the rounds before `before` and aggregates them; returns their rows.

        Raises:
            FederationError: there are none.
        """
        queries = self.config.queries
        self.scheduler.wait_for_round(before, queries.deadline_s, queries.quorum)
        answered = self.fitted.aggregate(before)
        if len(answered) == 0:
            why = {silo: state.left or dict(state.refusals) for silo, state in self.scheduler.silos.items()}
            raise FederationError(explain("answers", 0, f"no silo answered: {why}", "ask the silos' owners"))
        return answered

    def _next_size(self, work_s: float) -> int:
        """Rounds of the next group, given the seconds of work for a round."""
        queries, schedule, plan = self.config.queries, self.schedule, self.plan
        if len(schedule.ends) == 1 or schedule.asked <= plan.inherited:
            return schedule.size  # until something could be fitted and asked about, a round's work is not known
        sizes = [
            next_size(
                schedule.size,
                answer_s=answer_s,
                work_s=work_s,
                waiting_goal=OverlapPolicy.of(queries).waiting_goal,
                images_fit=images * plan.own_rounds // plan.own_images,
                rounds=plan.own_rounds,
            )
            for answer_s, images in self.scheduler.seconds_a_query()
        ]
        return max(sizes, default=schedule.size)

    def _save_checkpoint(self, group: range) -> None:
        with self.timeline.span("checkpoint", group.stop):
            save_checkpoint(
                self._folder,
                self.fitted.committee,
                self.generator,
                self.schedule,
                self.seconds,
                self.config.aggregation.exclude,
                self.scheduler.missed,
            )

    def _fit_student_to_all_answers(self) -> None:
        last = range(self.plan.rounds - 1, self.plan.rounds)

        def collect(before: int) -> Rows:
            self.scheduler.process_replies()
            return self._collect(before)

        self.fitted.fit_student_to_all(
            self.schedule, collect, lambda done: self._reporter.report(last, "final", final_steps_done=done)
        )
