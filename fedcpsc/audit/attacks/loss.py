# SPDX-License-Identifier: Apache-2.0
"""The loss attack: the better an image is fitted, the more it looks like a member."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import Attack
from fedcpsc.audit.attacks.statistics import LEAST, of_true_class
from fedcpsc.audit.observations import Evidence
from fedcpsc.errors import AuditError, explain

__all__ = ["LOSS", "loss_scores"]

Floats = npt.NDArray[np.float64]


def loss_scores(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """log p_y, the negative cross-entropy: members are better fitted (Yeom et al. 2018, arXiv 1709.01604).

    Args:
        probabilities: [n, C], rows in [0, 1].
        labels: integers [n] in [0, C).

    Returns:
        float64 [n], at least log(1e-45).
    """
    scores: Floats = np.log(of_true_class(probabilities, labels) + LEAST)
    return scores


class LossAttack(Attack):
    """See `loss_scores`."""

    def scores(self, evidence: Evidence) -> Floats:
        """As `Attack.scores`."""
        if evidence.target.loss is None:
            raise AuditError(explain("attack", self.name, "needs probabilities", "take label_only"))
        scores: Floats = evidence.target.loss[0]
        return scores


LOSS = LossAttack(
    name="loss",
    summary="log-likelihood of the true class: members are better fitted",
    when="for a baseline that needs no shadows",
    needs="answers with probabilities",
    reads="probabilities",
    source="1709.01604",
)
