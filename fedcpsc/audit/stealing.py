# SPDX-License-Identifier: Apache-2.0
"""Model stealing: how like its teacher a copy is, as a function of the answers it was fitted to and what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import AuditError, explain
from fedcpsc.privacy.accounting import gaussian_epsilon

__all__ = ["Likeness", "StolenAt", "answers_epsilon", "likeness", "stealing_curve"]

Floats = npt.NDArray[np.float64]

_LEAST = 1e-12


@dataclass(frozen=True)
class Likeness:
    """A copy beside its teacher, on the same held-out images.

    Attributes:
        agreement: share of the images to which both give the same label.
        kl: mean KL(teacher || copy) in nats; probabilities below 1e-12 are taken for 1e-12.
        accuracy: accuracy of the copy, in [0, 1]; None where nobody knows the true labels.
        teacher_accuracy: accuracy of the teacher, in [0, 1]; None likewise.
    """

    agreement: float
    kl: float
    accuracy: float | None
    teacher_accuracy: float | None


@dataclass(frozen=True)
class StolenAt:
    """One point of the curve.

    Attributes:
        answers: number of answers that the copy was fitted to.
        epsilon: epsilon that they cost; None where the policy guarantees nothing.
        likeness: likeness of the copy to its teacher.
    """

    answers: int
    epsilon: float | None
    likeness: Likeness


def likeness(teacher: npt.ArrayLike, copy: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> Likeness:
    """How like its teacher a copy is.

    Args:
        teacher: probabilities [n, K]; the teacher's own, not what a policy left of them.
        copy: probabilities [n, K].
        labels: true labels [n], where known.

    Raises:
        AuditError: where shapes do not fit, or a value is not finite.
    """
    p, q = np.asarray(teacher, np.float64), np.asarray(copy, np.float64)
    if p.ndim != 2 or p.shape != q.shape or not p.size:
        raise AuditError(explain("teacher, copy", (p.shape, q.shape), "must both be [n >= 1, K]", "ask both the same"))
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise AuditError(explain("teacher, copy", "NaN or inf", "must be finite", "fix the models"))
    said, repeated = p.argmax(1), q.argmax(1)
    log_p, log_q = (np.log(np.maximum(x, _LEAST)) for x in (p, q))
    accuracies: list[float | None] = [None, None]
    if labels is not None:
        truth = np.asarray(labels)
        if truth.shape != said.shape:
            raise AuditError(explain("labels", truth.shape, f"must be {said.shape}", "one label for each image"))
        accuracies = [float((repeated == truth).mean()), float((said == truth).mean())]
    return Likeness(
        agreement=float((said == repeated).mean()),
        kl=float((p * (log_p - log_q)).sum(1).mean()),
        accuracy=accuracies[0],
        teacher_accuracy=accuracies[1],
    )


def answers_epsilon(answers: int, cost: Fraction | float, delta: float) -> float:
    """epsilon of so many answers, each of mu^2 = `cost` (`Mechanism.cost`): what the ledger has charged for them.

    Args:
        answers: number of answers, >= 0.
        cost: mu^2 of one answer, >= 0, of a mechanism that is differentially private.
        delta: parameter of the guarantee, in (0, 1).

    Raises:
        AuditError: where a number is negative.
    """
    if answers < 0 or cost < 0:
        raise AuditError(explain("answers, cost", (answers, cost), "must be >= 0", "take them from the mechanism"))
    return gaussian_epsilon(math.sqrt(answers * cost), delta) if answers * cost > 0 else 0.0


def stealing_curve(
    teacher: npt.ArrayLike,
    copies: Sequence[tuple[int, npt.ArrayLike]],
    labels: npt.ArrayLike | None = None,
    epsilon_of: Callable[[int], float] | None = None,
) -> tuple[StolenAt, ...]:
    """Likeness against answers, sorted by their number.

    Args:
        teacher: teacher's own probabilities [n, K].
        copies: number of answers that each copy was fitted to, and its probabilities [n, K].
        labels: true labels [n]; None where nobody knows them.
        epsilon_of: function from a number of answers to their epsilon: `answers_epsilon` with a mechanism's cost, or a
            DP-SGD teacher's constant epsilon; None where the policy guarantees nothing.

    Raises:
        AuditError: as `likeness`.
    """
    return tuple(
        StolenAt(
            answers=answers,
            epsilon=None if epsilon_of is None else epsilon_of(answers),
            likeness=likeness(teacher, probabilities, labels),
        )
        for answers, probabilities in sorted(copies, key=lambda pair: pair[0])
    )
