# SPDX-License-Identifier: Apache-2.0
"""How far each silo is believed, as figures and words for an operator."""

from __future__ import annotations

import numpy as np
from typing_extensions import TypedDict

from fedcpsc.aggregation.reputation import FEWEST_SILOS, Standing
from fedcpsc.config import AggregationConfig
from fedcpsc.runs.suspicion import NO_TWO_AGREE

__all__ = ["Belief", "describe_beliefs", "why_not_judged"]


class Belief(TypedDict):
    """How far one silo is believed.

    Attributes:
        reputation: weight that it gets, its reputation times its lowest steadiness, in [0, 1].
        agreement: mean agreement with the others that share a class with it, in [0, 1]; None where none does.
        suspicion: what speaks against it, in words; None where nothing does.
    """

    reputation: float
    agreement: float | None
    suspicion: str | None


def describe_beliefs(standing: Standing) -> list[Belief]:
    """How far each silo is believed, in the bank's order.

    Args:
        standing: standing of the silos.
    """
    shared = standing.known.astype(np.int64) @ standing.known.T > 0
    np.fill_diagonal(shared, False)
    peers = shared.sum(1)
    agreement = (standing.agreement * shared).sum(1) / np.maximum(peers, 1)
    weight = standing.reputation * standing.steadiness.min(0)
    return [
        {
            "reputation": round(float(weight[silo]), 4),
            "agreement": round(float(agreement[silo]), 4) if peers[silo] else None,
            "suspicion": why,
        }
        for silo, why in enumerate(standing.suspicions())
    ]


def why_not_judged(config: AggregationConfig, silos: int, standing: Standing | None) -> str | None:
    """The reason why nothing can be said against any silo, in words; None where they are judged.

    Args:
        config: configuration of the aggregation.
        silos: number of silos of the run.
        standing: standing of the silos; None where they are not judged.
    """
    if not config.robust:
        return "aggregation.robust is false"
    if silos < FEWEST_SILOS:
        return "two silos cannot outvote each other" if silos > 1 else "one silo has none to be compared with"
    if standing is None:
        return "fewer than three silos have answered enough images to be compared"
    return NO_TWO_AGREE if standing.nobody_agrees else None
