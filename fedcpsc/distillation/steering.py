"""How much of each prior pays, told by the answers: towards kinds of image in which the silos see many classes.

A kind that the silos call nearly always the same teaches little about the others, and which kinds these are depends on
what the silos hold: strokes are letters to one federation and all of one class to another. The first rounds ask about
every kind by its weight and without selection; their answers settle the weights of the later rounds. That is
post-processing of answers that were paid for anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig
from fedcpsc.distillation.answer_bank import AnswerBank
from fedcpsc.distillation.synthesis import warm_up_rounds
from fedcpsc.priors.mixture import KINDS

__all__ = ["effective_classes", "steered", "steered_mixture"]


def steered_mixture(config: RunConfig, bank: AnswerBank, seen: int) -> dict[str, float]:
    """`synthesis.prior` as the answers to the first rounds speak for, so far as those before round `seen` have come."""
    mixture, power = config.synthesis.prior, config.synthesis.prior_power
    first = warm_up_rounds(config.synthesis, config.queries.rounds)
    rows = bank.answered_rows(range(min(first, seen)))
    if len(rows) == 0:
        return mixture
    return steered(mixture, bank.targets[rows], bank.pseudo_labels[rows], power)


def steered(
    mixture: Mapping[str, float],
    targets: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    power: float,
) -> dict[str, float]:
    """Weights, each multiplied by the effective number of classes of its kind to `power`; their sum is 1.

    Args:
        mixture: weights by name.
        targets: aggregated answers to images that were not selected, [N, K].
        labels: their banked pseudo-labels, int64 [N]; `-1 - k` where `KINDS[k]` made the image.
    """
    told = {name: effective_classes(targets, labels == -1 - KINDS.index(name)) for name in mixture}
    weights = {name: weight * told[name] ** power for name, weight in mixture.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def effective_classes(targets: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> float:
    """Perplexity of the chosen answers' mean, in [1, K]: K where all classes are named equally, whatever how surely.

    The mean is drawn towards that of all answers by as many as there are classes: of few, little is known.

    Args:
        targets: [N >= 1, K].
        chosen: bool [N].
    """
    classes = targets.shape[1]
    mean = (targets[chosen].sum(0) + classes * targets.mean(0)) / (chosen.sum() + classes)
    mean = mean.clip(1e-12) / mean.clip(1e-12).sum()
    return float(np.exp(-(mean * np.log(mean)).sum()))
