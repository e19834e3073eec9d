# SPDX-License-Identifier: Apache-2.0
"""What a membership score is worth: the curve of its errors, and guesses for the one-run bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from fedcpsc.errors import AuditError, explain
from fedcpsc.seeding import numpy_generator

__all__ = ["Roc", "guesses_from", "roc"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Roc:
    """How a score separates members from non-members, over all thresholds.

    Attributes:
        fpr: false positive rates, rising from 0 to 1 [t].
        tpr: true positive rates beside them [t].
        members: how many there were.
        non_members: how many there were.
    """

    fpr: Floats
    tpr: Floats
    members: int
    non_members: int

    @property
    def auc(self) -> float:
        """Area under the curve: P[member's score > non-member's], ties counting half."""
        return float(np.trapezoid(self.tpr, self.fpr))

    def tpr_at(self, fpr: float) -> float:
        """The largest true positive rate of a threshold whose false positive rate is at most `fpr`.

        Raises:
            AuditError: where there are too few non-members for one of them to be that share.
        """
        if not 0 < fpr <= 1:
            raise AuditError(explain("fpr", fpr, "must be in (0, 1]", "use 0.01"))
        needed = math.ceil(1 / fpr - 1e-9)
        if self.non_members < needed:
            raise AuditError(
                explain(
                    "non_members",
                    self.non_members,
                    f"a false positive rate of {fpr:g} needs at least {needed} (ten times that for a steady figure)",
                    "audit more images, or ask for a larger rate",
                )
            )
        return float(self.tpr[self.fpr <= fpr * (1 + 1e-9)].max())


def roc(scores: npt.ArrayLike, members: npt.ArrayLike) -> Roc:
    """The curve of `scores`.

    Args:
        scores: finite [n], higher for members.
        members: whether each is one [n].

    Raises:
        AuditError: where members or non-members are missing, a score is not finite, or shapes do not fit.
    """
    values, inside = _scored(scores, members)
    count = int(inside.sum())
    if not 0 < count < len(inside):
        raise AuditError(
            explain("members", count, f"of {len(inside)} scores: both kinds are needed", "audit other images too")
        )
    fpr, tpr, _ = roc_curve(inside, values, drop_intermediate=False)  # a dropped point may be the one asked for
    return Roc(fpr.astype(np.float64), tpr.astype(np.float64), count, len(inside) - count)


def guesses_from(scores: npt.ArrayLike, members: npt.ArrayLike, positive: int, negative: int) -> tuple[int, int]:
    """Guesses about canaries: the `positive` highest scores are members, the `negative` lowest are not.

    Both numbers must be fixed before anyone looks at scores; the bounds hold for nothing else. Equal scores are put in
    a fixed pseudo-random order, so that a list sorted by membership gives nothing away.

    Args:
        scores: finite [m], one for each canary.
        members: what its coin said [m].
        positive: k+ >= 0.
        negative: k- >= 0, k+ + k- in [1, m].

    Returns:
        (guesses, correct), for `bounds.one_run_epsilon` and `one_run_mu`.

    Raises:
        AuditError: where the numbers or shapes do not fit, or a score is not finite.
    """
    values, inside = _scored(scores, members)
    if positive < 0 or negative < 0 or not 1 <= positive + negative <= len(values):
        raise AuditError(
            explain(
                "positive, negative",
                (positive, negative),
                f"must be >= 0 and sum to 1..{len(values)} canaries",
                "guess about fewer, or plant more",
            )
        )
    ties = numpy_generator(0, "audit", "ties").permutation(len(values))
    order = np.lexsort((ties, values))  # from the lowest score
    right = int(inside[order[len(order) - positive :]].sum()) + int((~inside[order[:negative]]).sum())
    return positive + negative, right


def _scored(scores: npt.ArrayLike, members: npt.ArrayLike) -> tuple[Floats, Bools]:
    values, inside = np.asarray(scores, np.float64), np.asarray(members, np.bool_)
    if values.ndim != 1 or values.shape != inside.shape:
        raise AuditError(
            explain("scores, members", (values.shape, inside.shape), "must both be [n]", "one coin for each score")
        )
    if not np.isfinite(values).all():
        raise AuditError(explain("scores", "NaN or inf", "must be finite", "fix the model or the attack"))
    return values, inside
