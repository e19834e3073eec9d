# SPDX-License-Identifier: Apache-2.0
"""The label-only attack: members keep their label under more perturbations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import Attack
from fedcpsc.audit.observations import Evidence
from fedcpsc.errors import AuditError, explain

__all__ = ["LABEL_ONLY", "label_only_scores"]

Floats = npt.NDArray[np.float64]


def label_only_scores(labels_seen: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Share of an image's public perturbations (shifts, noise) that are still given its true label.

    Choquette-Choo et al. 2021 (arXiv 2007.14321): members lie farther from the decision boundary.

    Args:
        labels_seen: label answered for each of V perturbed views, integers [V, n].
        labels: true labels, integers [n].

    Returns:
        float64 [n] in [0, 1].

    Raises:
        AuditError: where there is no view, or shapes do not fit.
    """
    seen, own = np.asarray(labels_seen), np.asarray(labels)
    if seen.ndim != 2 or seen.shape[1:] != own.shape or not len(seen):
        raise AuditError(
            explain("labels_seen", seen.shape, f"must be [V >= 1, {len(own)}]", "ask about one view or more")
        )
    share: Floats = (seen == own).mean(0)
    return share


class LabelOnly(Attack):
    """See `label_only_scores`."""

    def scores(self, evidence: Evidence) -> Floats:
        """As `Attack.scores`."""
        scores: Floats = evidence.target.statistic[0]
        return scores


LABEL_ONLY = LabelOnly(
    name="label_only",
    summary="share of 16 public views of the record (moved, noisy) that keep the true label",
    when="where only labels are out",
    needs="answers with labels alone",
    reads="labels",
    source="2007.14321",
)
