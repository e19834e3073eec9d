# SPDX-License-Identifier: Apache-2.0
"""The likelihood-ratio attack with shadows that never saw the record."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import Attack
from fedcpsc.audit.attacks.statistics import checked, gaussians
from fedcpsc.audit.observations import Evidence

__all__ = ["LIRA_OFFLINE", "lira_offline"]

Floats = npt.NDArray[np.float64]


def lira_offline(
    target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike, *, fixed_variance: bool = True
) -> Floats:
    """(phi - mean_out) / std_out: how far the target is more confident than models that never saw the image.

    Carlini et al. 2022 (arXiv 2112.03570), equation 4: its score P[Z <= phi] is Phi of this one, in the same
    order.

    Args:
        target: phi of the target [n], see `confidence_logit`.
        shadows: phi of the shadows [S, n].
        member: whether shadow s was trained with image i, [S, n]; only shadows trained without an image count.
        fixed_variance: whether all images share one variance, about each image's own mean: better below 64 shadows.
            Otherwise each image has its own, from two shadows without it or more.

    Returns:
        float64 [n].

    Raises:
        AuditError: where an image has too few shadows without it, or shapes do not fit.
    """
    phi, table, inside = checked(target, shadows, member)
    mean, std = gaussians(table, ~inside, 1 if fixed_variance else 2, fixed_variance)
    score: Floats = (phi - mean) / std
    return score


class LiraOffline(Attack):
    """See `lira_offline`."""

    def scores(self, evidence: Evidence) -> Floats:
        """As `Attack.scores`."""
        return lira_offline(evidence.target.statistic[0], evidence.references.statistic, evidence.member)


LIRA_OFFLINE = LiraOffline(
    name="lira_offline",
    summary="how far the confidence lies above that of shadows trained without the record",
    when="for an attacker whose shadows are trained before the records are known",
    needs="shadows trained without each record",
    reads="either",
    source="2112.03570",
)
