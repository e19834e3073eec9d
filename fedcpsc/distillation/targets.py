"""Soft targets of the bank, kept in step with the answers that have arrived."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import FROM_ANSWERS, aggregate
from fedcpsc.distillation.information import Information, Window, measure, sample_answers
from fedcpsc.runs.answer_bank import AnswerBank

__all__ = ["TargetKeeper", "class_entropy", "mean_answers", "peak_answers"]

_PEAK = 0.02  # on validation images of twelve skewed federations anything from 0.2 % to 10 % did as well


class TargetKeeper:
    """Aggregates each batch anew whenever another silo's answers to it have arrived.

    Where what is known of the silos comes from their answers (`FROM_ANSWERS`, and silos that answer in unlike forms or
    under unlike noise), news changes every target.

    Args:
        counts: class counts float32 [S, K] in the bank's order of silos, for `class_prior_log`; else None.
        windows: how each silo answers; empty where all answer alike.

    Attributes:
        counts: what the rule weighs the silos by, float32 [S, K]; None where it weighs them by nothing such.
        information: what unlike windows leave of each silo's answers; None where all answer alike.
    """

    def __init__(
        self,
        bank: AnswerBank,
        config: AggregationConfig,
        counts: npt.NDArray[np.float32] | None,
        windows: Mapping[str, Window] | None = None,
    ) -> None:
        self._bank = bank
        self._config = config
        self._windows = windows or {}
        self.counts = counts
        self.information: Information | None = None
        self._seen: dict[str, int] = {}

    def refresh(self, before: int | None = None) -> None:
        """Brings `bank.targets` up to date; reads only batches with news, where the rule allows.

        Args:
            before: only answers to rounds before this one count; what has come of later ones changes nothing yet. None
                counts all.
        """
        batches = self._bank.batches_before(before)
        news = [batch for batch in batches if self._seen.get(batch.query_id, 0) != len(batch.answered)]
        if not news:
            return
        if self._windows:
            self.information = measure(self._bank, self._windows, before)
        if self._config.rule == "answer_prior_log":
            self.counts = mean_answers(self._bank, self.information, before)
        elif self._config.rule == "answer_peak_log":
            self.counts = peak_answers(self._bank, self.information, before)
        if self.information is not None or self._config.rule in FROM_ANSWERS:
            news = [batch for batch in batches if batch.answered]
        for batch in news:
            parts = [
                aggregate(
                    answers,
                    given,
                    self._config.rule,
                    counts=self.counts,
                    information=self.information,
                    smoothing=self._config.smoothing,
                )
                for _, answers, given in self._bank.pieces(batch)
            ]
            self._bank.set_targets(batch, np.concatenate(parts))
            self._seen[batch.query_id] = len(batch.answered)


def mean_answers(
    bank: AnswerBank, information: Information | None = None, before: int | None = None
) -> npt.NDArray[np.float32]:
    """Each silo's mean answer so far: float32 [S, K]; rows sum to 1 or, of silos that were silent, to 0.

    Args:
        before: only to rounds before this one; None: to all.
    """
    total, count = np.zeros((len(bank.silos), bank.classes)), np.zeros((len(bank.silos), 1))
    for batch in bank.batches_before(before):
        if not batch.answered:
            continue
        for _, answers, given in bank.pieces(batch):
            read = answers if information is None else information.read(answers)
            total += (read * given[:, :, None]).sum(1)
            count += given.sum(1, keepdims=True)
    mean: npt.NDArray[np.float32] = (total / np.maximum(count, 1)).astype(np.float32)
    return mean


def peak_answers(
    bank: AnswerBank, information: Information | None = None, before: int | None = None
) -> npt.NDArray[np.float32]:
    """How sure each silo gets of each class: mean of its highest 2 % of answers, float32 [S, K], 0 of silent silos.

    Args:
        before: only to rounds before this one; None: to all.
    """
    answers, given = sample_answers(bank, before)
    if information is not None:
        answers = information.read(answers)
    peaks = np.zeros((len(bank.silos), bank.classes), np.float32)
    for silo, (own, present) in enumerate(zip(answers, given, strict=True)):
        if present.any():
            highest = max(1, round(_PEAK * int(present.sum())))
            peaks[silo] = np.sort(own[present], axis=0)[-highest:].mean(0)
    return peaks


def class_entropy(targets: npt.NDArray[np.float32]) -> float:
    """Entropy of the histogram of most probable classes, divided by log K: 0 when one class takes all, 1 when even.

    Args:
        targets: [N >= 1, K].
    """
    classes = targets.shape[1]
    share = np.bincount(targets.argmax(1), minlength=classes) / len(targets)
    present = share[share > 0]
    return float(-(present * np.log(present)).sum() / math.log(classes))
