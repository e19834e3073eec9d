# SPDX-License-Identifier: Apache-2.0
"""The likelihood-ratio attack with shadows of both kinds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import Attack
from fedcpsc.audit.attacks.statistics import checked, gaussians, log_normal
from fedcpsc.audit.observations import Evidence

__all__ = ["LIRA_ONLINE", "lira_online"]

Floats = npt.NDArray[np.float64]


def lira_online(
    target: npt.ArrayLike, shadows: npt.ArrayLike, member: npt.ArrayLike, *, fixed_variance: bool = True
) -> Floats:
    """log N(phi; mean_in, var_in) - log N(phi; mean_out, var_out): the likelihood-ratio attack.

    Carlini et al. 2022 (arXiv 2112.03570), algorithm 1.

    Args:
        target: phi of the target [n], see `confidence_logit`.
        shadows: phi of the shadows [S, n].
        member: whether shadow s was trained with image i, [S, n]; each image needs shadows of both kinds.
        fixed_variance: whether all images share one variance, about each image's own mean: better below 64 shadows.
            Otherwise each image has its own, from two shadows of each kind or more.

    Returns:
        float64 [n].

    Raises:
        AuditError: where an image has too few shadows of a kind, or shapes do not fit.
    """
    phi, table, inside = checked(target, shadows, member)
    least = 1 if fixed_variance else 2
    with_, without = (gaussians(table, kind, least, fixed_variance) for kind in (inside, ~inside))
    return log_normal(phi, *with_) - log_normal(phi, *without)


class LiraOnline(Attack):
    """See `lira_online`."""

    def scores(self, evidence: Evidence) -> Floats:
        """As `Attack.scores`."""
        return lira_online(evidence.target.statistic[0], evidence.references.statistic, evidence.member)


LIRA_ONLINE = LiraOnline(
    name="lira_online",
    summary="likelihood ratio of the confidence under shadows with and without the record",
    when="where shadows can be trained with the record; the bounds rest on it",
    needs="shadows trained with and without each record",
    reads="either",
    source="2112.03570",
)
