"""How much of each prior pays, told by the answers: towards kinds of image in which the silos see many classes.

A kind that the silos call nearly always the same teaches little about the others, and which kinds these are depends on
what the silos hold: strokes are letters to one federation and all of one class to another. The first rounds ask about
every kind by its weight and without selection; their answers settle the weights of the later rounds. That is
post-processing of answers that were paid for anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig
from fedcpsc.distillation.answer_bank import AnswerBank
from fedcpsc.distillation.synthesis import warm_up_rounds
from fedcpsc.priors.mixture import KINDS

__all__ = ["Named", "effective_classes", "named_classes", "steered", "steered_mixture"]

Named: TypeAlias = npt.NDArray[np.float64]
"""Aggregated answers added up by the kind of their image: [kinds, K], in the order of `KINDS`."""


def steered_mixture(config: RunConfig, bank: AnswerBank, seen: int) -> dict[str, float]:
    """`synthesis.prior` as the answers to the first rounds speak for, so far as those before round `seen` have come."""
    mixture = config.synthesis.prior
    first = warm_up_rounds(config.synthesis, config.queries.rounds)
    named = named_classes(bank, min(first, seen))
    return steered(mixture, named, config.synthesis.prior_power) if named.any() else mixture


def named_classes(bank: AnswerBank, before: int) -> Named:
    """Of the answers to the rounds before `before`, without images of a generator; one batch in memory at a time."""
    named = np.zeros((len(KINDS), bank.classes))
    for batch in bank.batches_before(before):
        if batch.answered:
            rows = slice(batch.first, batch.first + batch.count)
            labels, targets = np.array(bank.pseudo_labels[rows]), np.array(bank.targets[rows])
            np.add.at(named, -1 - labels[labels < 0], targets[labels < 0])
    return named


def steered(mixture: Mapping[str, float], named: Named, power: float) -> dict[str, float]:
    """Weights by name, each multiplied by the effective number of classes of its kind to `power`; their sum is 1."""
    told = {name: effective_classes(named[KINDS.index(name)], named) for name in mixture}
    weights = {name: weight * told[name] ** power for name, weight in mixture.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def effective_classes(own: Named, named: Named) -> float:
    """Perplexity of the mean answer to one kind, in [1, K]: K where all classes are named equally, however surely.

    The mean is drawn towards that of all kinds by as many answers as there are classes: of few, little is known.

    Args:
        own: the kind's row of `named`, [K].
        named: not all zero.
    """
    everything, classes = named.sum(0), named.shape[1]
    mean = (own + classes * everything / everything.sum()) / (own.sum() + classes)
    mean = mean.clip(1e-12)
    return float(np.exp(-(mean * np.log(mean)).sum()))
