# SPDX-License-Identifier: Apache-2.0
"""The robust membership inference attack: one image against many that nobody trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import Attack
from fedcpsc.audit.attacks.statistics import LEAST, checked, mean_over
from fedcpsc.audit.observations import Evidence
from fedcpsc.errors import AuditError, explain

__all__ = ["RMIA", "rmia"]

Floats = npt.NDArray[np.float64]


def rmia(
    target: npt.ArrayLike,
    shadows: npt.ArrayLike,
    member: npt.ArrayLike,
    population_target: npt.ArrayLike,
    population_shadows: npt.ArrayLike,
    *,
    gamma: float = 1.0,
    offline_a: float | None = None,
) -> Floats:
    """P_z[(p(x|target) / p(x)) / (p(z|target) / p(z)) >= gamma]: x against many images z that nobody trained on.

    Zarifzadeh, Liu & Shokri 2024 (arXiv 2312.03262). All values are probabilities of the true class.
    p(x) is the mean of the shadows, those with and those without x weighing alike; offline it is
    ((1 + a) mean_out + 1 - a) / 2 from the shadows without x alone, and the same for z.

    Args:
        target: probability that the target gives to the true class [n], in [0, 1].
        shadows: the same probability by each shadow [S, n].
        member: whether shadow s was trained with image i, [S, n].
        population_target: probability by the target for images in no training set [p].
        population_shadows: probability by each shadow for the same images [S, p].
        gamma: factor by which x must be likelier, > 0.
        offline_a: parameter a of the offline attack, in [0, 1] (the paper: 0.3 to 0.6, by data set); None for online.

    Returns:
        float64 [n], multiples of 1 / p in [0, 1].

    Raises:
        AuditError: where an image has no shadow of a kind that is needed, or shapes or values do not fit.
    """
    own, table, inside = checked(target, shadows, member)
    their, theirs, nowhere = checked(
        population_target, population_shadows, np.zeros(np.shape(population_shadows), np.bool_)
    )
    if len(table) != len(theirs):
        raise AuditError(
            explain("population_shadows", theirs.shape, f"must have {len(table)} rows", "ask the same shadows")
        )
    if gamma <= 0 or (offline_a is not None and not 0 <= offline_a <= 1) or not len(their):
        raise AuditError(
            explain(
                "gamma, offline_a, population",
                (gamma, offline_a, len(their)),
                "must be > 0, in [0, 1], of at least one image",
                "use gamma=1 and offline_a=0.3",
            )
        )
    usual = mean_over(table, ~inside)
    usual_z = mean_over(theirs, ~nowhere)
    if offline_a is None:
        usual = (usual + mean_over(table, inside)) / 2
    else:
        usual, usual_z = (((1 + offline_a) * mean + 1 - offline_a) / 2 for mean in (usual, usual_z))
    ratios_z = np.sort(their / np.maximum(usual_z, LEAST))
    share: Floats = np.searchsorted(ratios_z * gamma, own / np.maximum(usual, LEAST), side="right") / len(ratios_z)
    return share


class Rmia(Attack):
    """See `rmia`."""

    def scores(self, evidence: Evidence) -> Floats:
        """As `Attack.scores`."""
        return rmia(
            evidence.target.likelihood[0],
            evidence.references.likelihood,
            evidence.member,
            evidence.target_population.likelihood[0],
            evidence.reference_population.likelihood,
        )


RMIA = Rmia(
    name="rmia",
    summary="likelihood of the record, set against those of many records that nobody trained on",
    when="where there are few shadows",
    needs="answers with probabilities, shadows, and a population",
    reads="probabilities",
    source="2312.03262",
)
