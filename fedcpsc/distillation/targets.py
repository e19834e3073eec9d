"""Soft targets of the bank, kept in step with the answers that have arrived."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.answer_bank import AnswerBank

__all__ = ["TargetKeeper", "class_entropy"]


class TargetKeeper:
    """Aggregates each batch anew whenever another silo's answers to it have arrived.

    Args:
        weights: class counts float32 [S, K] in the bank's order of silos, for `class_prior_log`; else None.
    """

    def __init__(self, bank: AnswerBank, config: AggregationConfig, weights: npt.NDArray[np.float32] | None) -> None:
        self._bank = bank
        self._config = config
        self._weights = weights
        self._seen: dict[str, int] = {}

    def refresh(self) -> None:
        """Brings `bank.targets` up to date; reads only batches with news."""
        for batch in self._bank.batches:
            if self._seen.get(batch.query_id, 0) == len(batch.answered):
                continue
            answers, given = self._bank.answers(batch)
            targets = aggregate(
                answers, given, self._config.rule, counts=self._weights, smoothing=self._config.smoothing
            )
            self._bank.set_targets(batch, targets)
            self._seen[batch.query_id] = len(batch.answered)


def class_entropy(targets: npt.NDArray[np.float32]) -> float:
    """Entropy of the histogram of most probable classes, divided by log K: 0 when one class takes all, 1 when even.

    Args:
        targets: [N >= 1, K].
    """
    classes = targets.shape[1]
    share = np.bincount(targets.argmax(1), minlength=classes) / len(targets)
    present = share[share > 0]
    return float(-(present * np.log(present)).sum() / math.log(classes))
