# SPDX-License-Identifier: Apache-2.0
"""Who contributed what: the weight each silo's answers had in the soft targets, class by class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.aggregation.rule import AggregationRule
from fedcpsc.distillation.aggregation import silo_shares
from fedcpsc.distillation.information import Information
from fedcpsc.runs.answer_bank import AnswerBank

__all__ = ["contribution"]


def contribution(
    bank: AnswerBank,
    rule: AggregationRule,
    counts: npt.NDArray[np.float32] | None,
    information: Information | None = None,
    standing: Standing | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Over the images whose target's most probable class is k: how many, and each silo's mean share in component k.

    Args:
        bank: answer bank with its targets up to date.
        counts: what the rule weighs silos by, [S, K], as `TargetKeeper.counts`.
        information: what each silo's answers are worth, see `TargetKeeper.information`.
        standing: how far each silo is believed, see `TargetKeeper.standing`.

    Returns:
        images int64 [K], and shares float64 [S, K] in [0, 1]: a column sums to 1, or is 0 where the class has no image.
    """
    images = np.zeros(bank.classes, np.int64)
    total = np.zeros((bank.classes, len(bank.silos)))
    for batch in bank.batches:
        if not batch.heard:
            continue
        for rows, answers, given, mass in bank.pieces(batch):
            heard = given.any(0)
            seen = bank.targets[rows][heard].argmax(1)
            weight = None if mass is None else bank.label_sets.weights(mass[:, heard])
            shares = silo_shares(  # [S, n, K]
                answers[:, heard],
                given[:, heard],
                rule,
                counts=counts,
                information=information,
                weight=weight,
                standing=standing,
                place=(batch.first + batch.count / 2) / bank.rows,
            )
            np.add.at(total, seen, shares[:, np.arange(len(seen)), seen].T)
            images += np.bincount(seen, minlength=bank.classes)
    return images, (total / np.maximum(images, 1)[:, None]).T
