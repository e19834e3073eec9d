# SPDX-License-Identifier: Apache-2.0
"""Soft targets of a bank: made of its answers by a rule, and kept in step with the answers that have arrived."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.answer_peak_log import ANSWER_PEAK_LOG
from fedcpsc.aggregation.reputation import Standing, believed_counts, judge
from fedcpsc.aggregation.rule import RULES, Answered, Floats
from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.information import Information, Window, measure, sample_answers
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_index import BankIndex
from fedcpsc.runs.bank_journal import Batch

__all__ = ["BankAnswers", "TargetKeeper", "TargetMaker", "class_entropy"]

_UNJUDGED_SMOOTHING = 1e-4


class BankAnswers:
    """A bank's answers so far, as a rule learns from them (`aggregation.rule.AnswersSoFar`).

    Args:
        bank: bank that holds them.
        information: how to read them; None: as they are.
        before: number of the first round that is left out; None: no round is.
        standing: how to temper them; None: not at all.
    """

    def __init__(
        self,
        bank: BankIndex,
        information: Information | None = None,
        before: int | None = None,
        standing: Standing | None = None,
    ) -> None:
        self._bank = bank
        self._information = information
        self._before = before
        self._standing = standing

    @property
    def shape(self) -> tuple[int, int]:
        """(S, K)."""
        return len(self._bank.silos), self._bank.classes

    def pieces(self) -> Iterator[tuple[Floats, Answered]]:
        """Answers [S, n, K], and who gave one, [S, n], of every batch that any silo answered.

        A row sums to 1, or to less where a silo's answer says "none of my classes": to the part that says otherwise.
        """
        for batch in self._bank.batches_before(self._before):
            if batch.heard:
                for _, answers, given, _ in self._bank.pieces(batch):
                    yield self._read(answers), given

    def sample(self) -> tuple[Floats, Answered]:
        """The same of some thousand images."""
        answers, given = sample_answers(self._bank, self._before)
        return self._read(answers), given

    def _read(self, answers: Floats) -> Floats:
        read = answers if self._information is None else self._information.read(answers)
        return read if self._standing is None else self._standing.temper(read)


class TargetMaker:
    """Makes a bank's targets of its answers and of what is known of the silos; of the bank it only reads.

    Args:
        bank: bank that holds the answers.
        config: configuration of the aggregation.
        counts: class counts float32 [S, K] in the bank's order of silos, where the rule needs class reports; or None.
        windows: how each silo answers; empty where all answer alike.

    Attributes:
        counts: what the rule weighs the silos by, float32 [S, K]; None where it weighs them by nothing such.
        information: what unlike windows leave of each silo's answers; None where all answer alike.
        standing: how far each silo may be believed; None where that is not judged, or cannot be yet.
    """

    def __init__(
        self,
        bank: BankIndex,
        config: AggregationConfig,
        counts: npt.NDArray[np.float32] | None,
        windows: Mapping[str, Window] | None = None,
    ) -> None:
        self._answers = bank
        self._config = config
        self._rule = RULES.get(config.rule)
        self._windows = windows or {}
        self._reported = counts
        self.counts = counts
        self.information: Information | None = None
        self.standing: Standing | None = None

    @property
    def smoothing(self) -> float:
        """`aggregation.smoothing` with its blank filled in."""
        judged = self.standing is not None
        return self._config.smoothing or (1 / self._answers.classes if judged else _UNJUDGED_SMOOTHING)

    def learn(self, before: int | None = None) -> bool:
        """Learns of the silos what their answers tell.

        Args:
            before: number of the first round whose answers are left out; None: none are.

        Returns:
            Whether anything was learnt so, and every target therefore depends on every answer.
        """
        bank = self._answers
        if self._windows:
            self.information = measure(bank, self._windows, before)
        if self._config.robust:
            self.standing = judge(BankAnswers(bank, self.information, before), bank.label_sets.known)
        heard = BankAnswers(bank, self.information, before, self.standing)
        if self._rule.learns_from_answers:
            self.counts = self._rule.learn(heard)
            if not bank.label_sets.alike:
                self.counts = self.counts * bank.label_sets.known  # a rule may have smoothed what it learnt
        elif self._reported is not None and self.standing is not None:
            self.counts = believed_counts(self._reported, ANSWER_PEAK_LOG.learn(heard))
        return self.information is not None or self.standing is not None or self._rule.learns_from_answers

    def targets_of(self, batch: Batch, rows: int) -> Floats:
        """Targets of a batch by what was learnt last, float32 [n, K]; 0 where nobody answered.

        Args:
            batch: batch of the bank.
            rows: number of the bank's rows that were learnt from.
        """
        bank = self._answers
        parts = [
            aggregate(
                answers,
                given,
                self._rule,
                counts=self.counts,
                information=self.information,
                weight=None if mass is None else bank.label_sets.weights(mass),
                standing=self.standing,
                place=(batch.first + batch.count / 2) / rows,
                smoothing=self.smoothing,
            )
            for _, answers, given, mass in bank.pieces(batch)
        ]
        return np.concatenate(parts)


class TargetKeeper(TargetMaker):
    """Aggregates each batch anew whenever another silo's answers to it have arrived.

    Where what is known of the silos comes from their answers (their standing, `AggregationRule.learns_from_answers`,
    and silos that answer in unlike forms or under unlike noise), news changes every target.

    Args:
        bank: bank that holds the answers, and is given the targets.
        config, counts, windows: arguments of `TargetMaker`.
    """

    def __init__(
        self,
        bank: AnswerBank,
        config: AggregationConfig,
        counts: npt.NDArray[np.float32] | None,
        windows: Mapping[str, Window] | None = None,
    ) -> None:
        super().__init__(bank, config, counts, windows)
        self._bank = bank
        self._seen: dict[str, int] = {}

    def refresh(self, before: int | None = None) -> None:
        """Brings `bank.targets` up to date; reads only batches with news, where the rule allows.

        Args:
            before: only answers to rounds before this one count; what has come of later ones changes nothing yet. None
                counts all.
        """
        batches = self._bank.batches_before(before)
        news = [batch for batch in batches if self._seen.get(batch.query_id, 0) != batch.heard]
        if not news:
            return
        if self.learn(before):
            news = [batch for batch in batches if batch.heard]
        for batch in news:
            self._bank.set_targets(batch, self.targets_of(batch, batches[-1].rows.stop))
            self._seen[batch.query_id] = batch.heard


def class_entropy(targets: npt.NDArray[np.float32]) -> float:
    """Entropy of the histogram of most probable classes, divided by log K: 0 when one class takes all, 1 when even.

    Args:
        targets: [N >= 1, K].
    """
    classes = targets.shape[1]
    share = np.bincount(targets.argmax(1), minlength=classes) / len(targets)
    present = share[share > 0]
    return float(-(present * np.log(present)).sum() / math.log(classes))
