# SPDX-License-Identifier: Apache-2.0
"""The audit by two worlds: many trainings with one unit and as many without, distinguished by one number each.

It needs no canaries and asks about one record, or one person with all records: whatever is in the training in one
world and not in the other. So it sees what canaries cannot: a training that clips records where it claims to protect
persons gives a person with many records many times the weight that its noise covers.

The threshold between the worlds is found on the first part of the scores, and the errors are counted on the others:
nothing that is counted was looked at before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.bounds import two_world_epsilon, two_world_mu
from fedcpsc.audit.figures import Unit
from fedcpsc.audit.reach import reachable_worlds
from fedcpsc.errors import AuditError, explain

__all__ = ["TwoWorlds", "audit_two_worlds", "two_worlds"]

Floats = npt.NDArray[np.float64]

_LOOKED_AT = 0.25  # of the scores of each world, for the threshold


@dataclass(frozen=True)
class TwoWorlds:
    """What two worlds show.

    Attributes:
        unit: what is in one world and not in the other.
        without: number of trainings without it that were counted.
        with_: number of trainings with it that were counted.
        false_positives: number of trainings without it that were taken for trainings with it.
        false_negatives: number of trainings with it that were taken for trainings without it.
        threshold: score from which on a training was taken for one with it.
        delta: delta of the claim.
        confidence: confidence of the bounds, each.
        epsilon: lower bound on epsilon at `delta`, per `unit`.
        reachable_epsilon: largest bound that so many trainings could have given.
        mu: lower bound on mu, for mechanisms that are Gaussian.
    """

    unit: Unit
    without: int
    with_: int
    false_positives: int
    false_negatives: int
    threshold: float
    delta: float
    confidence: float
    epsilon: float
    reachable_epsilon: float
    mu: float


def audit_two_worlds(
    train: Callable[[bool], float], trainings: int, delta: float, confidence: float = 0.95, unit: Unit = "person"
) -> TwoWorlds:
    """Trains in both worlds in turn, and compares.

    Args:
        train: one training, with the unit where its argument is true, with fresh randomness at each call; returns one
            finite score, higher where the unit seems to be in it.
        trainings: number of trainings of each world, >= 8.
        delta: delta of the claim, in [0, 1).
        confidence: confidence of each bound, in (0, 1).
        unit: what is in one world and not in the other.

    Raises:
        AuditError: where an argument is out of range or a score is not finite.
    """
    scores = np.array([[train(False), train(True)] for _ in range(trainings)], np.float64).reshape(-1, 2)
    return two_worlds(scores[:, 0], scores[:, 1], delta, confidence, unit)


def two_worlds(
    without: Floats, with_: Floats, delta: float, confidence: float = 0.95, unit: Unit = "person"
) -> TwoWorlds:
    """Lower bounds from the scores of trainings that differ by one unit.

    Args:
        without: scores of independent trainings without it [n >= 8], in the order they were made.
        with_: scores of independent trainings with it [p >= 8].
        delta: delta of the claim, in [0, 1).
        confidence: confidence of each bound, in (0, 1).
        unit: what is in one world and not in the other.

    Raises:
        AuditError: where there are too few scores, or one is not finite.
    """
    if min(len(without), len(with_)) < 8 or not (np.isfinite(without).all() and np.isfinite(with_).all()):
        got = (len(without), len(with_))
        raise AuditError(explain("scores", got, "must be 8 or more finite ones of each world", "train more often"))
    looked = [round(_LOOKED_AT * len(scores)) for scores in (without, with_)]
    threshold = _threshold(without[: looked[0]], with_[: looked[1]])
    negatives, positives = without[looked[0] :], with_[looked[1] :]
    errors = (
        int((negatives >= threshold).sum()),
        len(negatives),
        int((positives < threshold).sum()),
        len(positives),
    )
    return TwoWorlds(
        unit=unit,
        without=len(negatives),
        with_=len(positives),
        false_positives=errors[0],
        false_negatives=errors[2],
        threshold=threshold,
        delta=delta,
        confidence=confidence,
        epsilon=two_world_epsilon(*errors, delta, confidence),
        reachable_epsilon=reachable_worlds(len(negatives), len(positives), delta, confidence),
        mu=two_world_mu(*errors, confidence),
    )


def _threshold(without: Floats, with_: Floats) -> float:
    """Between the medians: where both error rates of two like, symmetric distributions are the same."""
    return float((np.median(without) + np.median(with_)) / 2)
