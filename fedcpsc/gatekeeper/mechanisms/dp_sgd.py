# SPDX-License-Identifier: Apache-2.0
"""Answers of a teacher that was trained with differential privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import DP_TRAINED, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy
from fedcpsc.teachers.proof import DpSgdProof

if TYPE_CHECKING:
    from fedcpsc.privacy.mechanisms import DpSgdTeacher

__all__ = ["DP_SGD", "DpSgdPolicy"]


class DpSgdPolicy(DpPolicy):
    """The teacher was trained by DP-SGD, as its manifest proves; its answers are free."""

    kind: Literal["dp_sgd"] = "dp_sgd"


def _make(section: DpSgdPolicy, proof: DpSgdProof) -> DpSgdTeacher:
    from fedcpsc.privacy.mechanisms import DpSgdTeacher  # noqa: PLC0415 - brings numpy

    return DpSgdTeacher()


DP_SGD = MechanismKind(
    name="dp_sgd",
    summary="answers of a teacher that was trained by DP-SGD",
    when="where one model must be private and may then be asked as often as one likes",
    section=DpSgdPolicy,
    teacher=DP_TRAINED,
    make=_make,
    cost="0",
    guarantee="the training's (epsilon, delta); answers are post-processing",
)
