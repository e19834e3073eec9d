# SPDX-License-Identifier: Apache-2.0
"""What share of each class a silo holds, guessed from its answers alone; the truth is known to the auditor only.

A model that saw a class more often favours it wherever the image says little. The mean answer to public noise, or to
public images of all classes alike, is therefore an estimate of the silo's class mix, with no image of the silo at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import AuditError, explain

__all__ = ["LabelMixLeak", "correlation", "estimate_mix", "label_mix_leak", "total_variation"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelMixLeak:
    """How well a guessed class mix fits the true one.

    Attributes:
        estimate: guessed share of each class, sums to 1.
        total_variation: distance from the truth, in [0, 1].
        uniform_total_variation: the distance of the guess "all alike": what no answer at all would give.
        correlation: correlation with the truth over classes, in [-1, 1]; NaN-free: 0 where one of both is uniform.
    """

    estimate: tuple[float, ...]
    total_variation: float
    uniform_total_variation: float
    correlation: float


def estimate_mix(answers: npt.ArrayLike, probe_labels: npt.ArrayLike | None = None) -> Floats:
    """The mean answer, as shares.

    Args:
        answers: probabilities, top-k probabilities or one-hot labels [n, K], >= 0.
        probe_labels: the class of each probe [n] where the probes are public images; every class that occurs then
            weighs alike. None for noise.

    Returns:
        float64 [K], sums to 1.

    Raises:
        AuditError: where there is no answer, an answer is negative or not finite, or shapes do not fit.
    """
    table = np.asarray(answers, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all() or table.min() < 0 or table.sum() <= 0:
        raise AuditError(
            explain("answers", table.shape, "must be [n >= 1, K], finite, >= 0, not all 0", "ask about some images")
        )
    if probe_labels is None:
        mean = table.mean(0)
    else:
        labels = np.asarray(probe_labels)
        if labels.shape != (len(table),):
            raise AuditError(explain("probe_labels", labels.shape, f"must be [{len(table)}]", "one for each answer"))
        mean = np.mean([table[labels == label].mean(0) for label in np.unique(labels)], axis=0)
    shares: Floats = mean / mean.sum()
    return shares


def total_variation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Half the L1 distance of two distributions [K], in [0, 1]."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).sum() / 2)


def correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Pearson's correlation over classes; 0 where one of both is constant, hence says nothing."""
    a, b = (x - x.mean() for x in (np.asarray(one, np.float64), np.asarray(other, np.float64)))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 1e-15 else 0.0


def label_mix_leak(
    answers: npt.ArrayLike, counts: npt.ArrayLike, probe_labels: npt.ArrayLike | None = None
) -> LabelMixLeak:
    """The guess from `answers`, compared with the silo's true class counts.

    Args:
        answers: probabilities, top-k probabilities or one-hot labels [n, K], >= 0.
        counts: private images of each class [K].
        probe_labels: class of each probe [n] where the probes are public images; None for noise.

    Raises:
        AuditError: as `estimate_mix`, and where counts and answers have different classes.
    """
    truth, guess = np.asarray(counts, np.float64), estimate_mix(answers, probe_labels)
    if truth.shape != guess.shape or truth.sum() <= 0 or truth.min() < 0:
        raise AuditError(explain("counts", truth.shape, f"must be [{len(guess)}], >= 0, not all 0", "count again"))
    truth = truth / truth.sum()
    return LabelMixLeak(
        estimate=tuple(float(share) for share in guess),
        total_variation=total_variation(guess, truth),
        uniform_total_variation=total_variation(np.full(len(truth), 1 / len(truth)), truth),
        correlation=correlation(guess, truth),
    )
