# SPDX-License-Identifier: Apache-2.0
"""What every attack is: one object that says what it reads and gives each image a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.observations import Evidence
from fedcpsc.choices import ATTACKS as NAMES
from fedcpsc.registry import Entry, Registry

__all__ = ["ATTACKS", "Attack"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attack(Entry, ABC):
    """An attack that a configuration names.

    Attributes:
        reads: answers that it can work on: probabilities, labels (the share of public views that keep the true label),
            or either of the two.
        source: arXiv number of the paper.
    """

    reads: Literal["probabilities", "labels", "either"]
    source: str

    def works_on(self, *, labels_only: bool) -> bool:
        """Whether it can be run.

        Args:
            labels_only: whether labels alone are out.
        """
        return self.reads in ("either", "labels" if labels_only else "probabilities")

    @abstractmethod
    def scores(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """The target's score for each image [N], higher where the image looks more like a member.

        Args:
            evidence: observations of the target, of the shadows, and of both on the population.

        Raises:
            AuditError: where the evidence is too little, or its shapes do not fit.
        """


ATTACKS: Registry[Attack] = Registry(NAMES, Attack)  # type: ignore[type-abstract]  # only isinstance is asked
