# SPDX-License-Identifier: Apache-2.0
"""The round loop: make images -> ask the silos -> fit to the bank while they work -> store answers -> checkpoint.

Rounds are asked in groups. A group is one round unless the silos are slow; `round_schedule.py` says which answers
it uses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.belief import describe_beliefs
from fedcpsc.distillation.checkpoint import load_checkpoint, save_checkpoint
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.fitting import Fit
from fedcpsc.distillation.progress import describe_progress
from fedcpsc.distillation.query_images import QueryImages
from fedcpsc.distillation.query_scheduler import QueryScheduler
from fedcpsc.distillation.round_schedule import OverlapPolicy, RoundSchedule, next_size
from fedcpsc.distillation.steps import BankReader, Member, check_finite, make_committee
from fedcpsc.distillation.synthesis import make_generator
from fedcpsc.distillation.targets import TargetKeeper, class_entropy
from fedcpsc.errors import FederationError, explain
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.students import Start
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.suspicion import SuspicionWatch
from fedcpsc.runs.timeline import Timeline
from fedcpsc.seeding import derive_seed

__all__ = ["Progress", "RoundLoop"]

Progress: TypeAlias = Callable[[MetricsLine], None]

_FINAL_CHUNKS = 20  # progress lines of the final fit
_FIT_CHUNK = 10  # steps between two looks for replies
_NO_ROWS = np.zeros(0, np.int64)


class RoundLoop:
    """The rounds of a run and its final fit, whose product is the student.

    Args:
        config: configuration of the run.
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
        start: what the student begins as; None for what the configuration alone says.

    Attributes:
        committee: networks that are fitted to the answers; the first is the student.
        generator: last generator that was trained; None before the first.
        schedule: round groups so far, and the size of the next group.
        entropy: entropy of the classes that the silos see in the images, in [0, 1].
    """

    def __init__(
        self,
        config: RunConfig,
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
        start: Start | None = None,
    ) -> None:
        self.turned_away = dict(turned_away or {})
        self._suspicions = SuspicionWatch()
        self.config, self.bank, self.scheduler, self.targets, self.timeline = config, bank, scheduler, targets, timeline
        self.device, self.evaluation = device, evaluation
        self._fit, self._folder, self._progress, self._tell = fit, folder, progress, tell
        self.start = start or Start()
        self._reader = BankReader(bank, device)
        self._images = QueryImages(config, bank, scheduler.images_per_batch, device)
        self.committee: list[Member] = self._new_committee()
        self.generator: ConditionalGenerator | None = None
        self.schedule = RoundSchedule(OverlapPolicy.of(config.queries).max_outstanding)
        self.entropy = 1.0

    @property
    def student(self) -> Member:
        """The committee's first member."""
        return self.committee[0]

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
        rounds = self.config.queries.rounds
        self._resume()
        while self.schedule.asked < rounds:
            group = self.schedule.next_group(rounds)
            begun_s, waited_s = self.seconds, self.timeline.waited_s
            self.targets.refresh(self.schedule.seen)
            self._ask_about_new_images(group)
            self._fit_committee(group)  # on earlier answers, while the silos work
            self.schedule = self.schedule.after(group)
            self._measure_answers(self._wait_and_aggregate(self.schedule.seen))
            work_s = self.seconds - begun_s - (self.timeline.waited_s - waited_s)
            self.schedule = replace(self.schedule, size=self._next_size(work_s / len(group)))
            self._save_checkpoint(group)
            self._report(group, "round")
            if not self.scheduler.active:
                break  # every budget is spent: what is banked is what there is
        self._fit_student_to_all_answers()

    def _resume(self) -> None:
        """Goes on from the checkpoint, where there is one, and asks again what a crash left unanswered."""
        found = load_checkpoint(self._folder, self.committee, self.device)
        self.schedule = replace(self.schedule, ends=found.ends, size=found.size)
        self.timeline.at_least(found.seconds)
        if found.generator is not None:
            untrained = make_generator(self.config.synthesis, self.bank.classes, self.bank.image_shape, seed=0)
            self.generator = untrained.to(self.device)
            self.generator.load_state_dict(found.generator)
        self.scheduler.expect_nothing_of(found.missed)
        self.scheduler.ask([batch for batch in self.bank.batches if batch.round < self.schedule.asked])
        if found.ends and found.excluded != set(self.config.aggregation.exclude):
            self._fit_anew()

    def _fit_anew(self) -> None:
        """Fits a new committee as often as the one that knew answers of other silos (`aggregation.exclude`)."""
        self._tell("aggregation.exclude is not what it was: the student is fitted anew to the answers that remain")
        self.committee = self._new_committee()
        with self.timeline.span("targets", self.schedule.asked):
            self.targets.refresh(self.schedule.seen)
        self._fit_committee(range(self.schedule.asked))

    def _new_committee(self) -> list[Member]:
        config, bank = self.config, self.bank
        return make_committee(config.student, bank.classes, bank.image_shape, config.seed, self.device, self.start)

    def _ask_about_new_images(self, group: range) -> None:
        """Makes the group's images, commits them to the bank and sends them to the silos."""
        with self.timeline.span("synthesis", group.stop):
            networks = [member.network for member in self.committee]
            made = self._images.make(group, networks, self.schedule.seen)
        self.generator = made.generator or self.generator
        self.scheduler.ask(made.batches, made.recipes)

    def _fit_committee(self, group: range) -> None:
        """Fits every member on the answers that the group uses, while its own are on their way."""
        self._reader.refresh()
        with self.timeline.span("fit", group.stop):
            for round_index in group:
                self._fit_round(round_index)

    def _fit_round(self, round_index: int) -> None:
        """One round's steps of every member; replies are banked between them."""
        config, total = self.config.student, self.config.steps_per_round
        pool = self.bank.answered_rows(range(self.schedule.seen))
        newest = self.bank.answered_rows(self.schedule.newest)
        for index, member in enumerate(self.committee if len(pool) else ()):
            share = config.fresh_share if index == 0 else 0.0  # its fellows see the bank evenly, and so differ
            for done in range(0, total, _FIT_CHUNK):
                steps = min(_FIT_CHUNK, total - done)
                seed = derive_seed(self.config.seed, "fit", round_index, index, done)
                losses = self._fit(member, config, self._reader, pool, newest, steps, seed, fresh_share=share)
                self.scheduler.process_replies()
            check_finite([losses], f"loss in round {round_index + 1}")

    def _wait_and_aggregate(self, before: int) -> npt.NDArray[np.int64]:
        """Waits for the answers to the rounds before `before` and aggregates them; returns their rows."""
        queries = self.config.queries
        self.scheduler.wait_for_round(before, queries.deadline_s, queries.quorum)
        with self.timeline.span("targets", before):
            self.targets.refresh(before)
        return self.bank.answered_rows(range(before))

    def _measure_answers(self, answered: npt.NDArray[np.int64]) -> None:
        """Notes how evenly the answers name the classes.

        Raises:
            FederationError: there are none.
        """
        self._check_answered(answered)
        self.entropy = class_entropy(self.bank.targets[answered])

    def _check_answered(self, answered: npt.NDArray[np.int64]) -> None:
        if len(answered) == 0:
            why = {silo: state.left or dict(state.refusals) for silo, state in self.scheduler.silos.items()}
            raise FederationError(explain("answers", 0, f"no silo answered: {why}", "ask the silos' owners"))

    def _next_size(self, work_s: float) -> int:
        """Rounds of the next group, given the seconds of work for a round."""
        queries, schedule = self.config.queries, self.schedule
        if len(schedule.ends) == 1:  # until something could be fitted, a round's work is not known
            return schedule.size
        sizes = [
            next_size(
                schedule.size,
                answer_s=answer_s,
                work_s=work_s,
                waiting_goal=OverlapPolicy.of(queries).waiting_goal,
                images_fit=images * queries.rounds // queries.answers_per_silo,
                rounds=queries.rounds,
            )
            for answer_s, images in self.scheduler.seconds_a_query()
        ]
        return max(sizes, default=schedule.size)

    def _save_checkpoint(self, group: range) -> None:
        with self.timeline.span("checkpoint", group.stop):
            excluded, missed = self.config.aggregation.exclude, self.scheduler.missed
            save_checkpoint(self._folder, self.committee, self.generator, self.schedule, self.seconds, excluded, missed)

    def _fit_student_to_all_answers(self) -> None:
        """The final fit: the student alone, on the whole bank, with the learning rate falling to zero.

        Answers still outstanding are waited for one group after the other, at steps fixed beforehand.
        """
        config, rounds, total = self.config.student, self.config.queries.rounds, self.config.final_steps
        average = copy.deepcopy(self.student.network) if config.average > 0 else None
        chunk = max(1, -(-total // _FINAL_CHUNKS))
        for done in range(0, total, chunk):
            steps = min(chunk, total - done)
            self.scheduler.process_replies()
            pool = self._wait_and_aggregate(self.schedule.seen_by(done, total))
            self._check_answered(pool)
            self._reader.refresh()
            with self.timeline.span("final", rounds):
                losses = self._fit(
                    self.student, config, self._reader, pool, _NO_ROWS, steps,
                    derive_seed(self.config.seed, "final", done), cosine_from=(done, total), average=average,
                )  # fmt: skip
            check_finite([losses], "loss in the final fit")
            if average is not None and done + steps == total:
                self.student.network.load_state_dict(average.state_dict())
            self._report(range(rounds - 1, rounds), "final", final_steps_done=done + steps)
        self._wait_and_aggregate(self.schedule.asked)  # a final fit of no steps has waited for nothing

    def _report(self, group: range, phase: Literal["round", "final"], final_steps_done: int = 0) -> None:
        """Measures the student where that is due, and passes on one line of progress."""
        config = self.config
        with self.timeline.span("evaluation", group.stop):
            line = describe_progress(
                config, self.bank, self.scheduler, self.timeline,
                phase=phase, rounds_done=group.stop, final_steps_done=final_steps_done, entropy=self.entropy,
                standing=self.targets.standing, turned_away=self.turned_away,
            )  # fmt: skip
            in_rounds = any((r + 1) % config.evaluation.every == 0 for r in group)
            due = in_rounds if phase == "round" else final_steps_done >= config.final_steps
            if self.evaluation is not None and due:
                predicted = predicted_classes(self.student.network, self.evaluation, config.evaluation.batch_size)
                line["student_accuracy"] = accuracy(predicted, self.evaluation)
            self._progress(line)
        self._tell_of_suspicions()

    def _tell_of_suspicions(self) -> None:
        """Tells of silos that are suspected now and were not before, and of those that are no longer."""
        standing = self.targets.standing
        beliefs = [] if standing is None else list(zip(self.bank.silos, describe_beliefs(standing), strict=True))
        arisen, gone = self._suspicions.changes({silo: why for silo, told in beliefs if (why := told["suspicion"])})
        for line in arisen + gone:
            self._tell(line)
