# SPDX-License-Identifier: Apache-2.0
"""No mechanism: answers as the teacher gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import ANY, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import MechanismPolicy

if TYPE_CHECKING:
    from fedcpsc.privacy.mechanisms import Plain

__all__ = ["NONE", "NoMechanism"]


class NoMechanism(MechanismPolicy):
    """Answers as the teacher gives them, in the form asked for. No differential privacy."""

    kind: Literal["none"] = "none"


def _make(section: NoMechanism, proof: None) -> Plain:
    from fedcpsc.privacy.mechanisms import Plain  # noqa: PLC0415 - brings numpy

    return Plain()


NONE = MechanismKind(
    name="none",
    summary="answers as the teacher gives them",
    when="where the server is trusted with whatever answers give away",
    section=NoMechanism,
    teacher=ANY,
    make=_make,
    cost="nothing is counted but answers",
    guarantee="nothing (`dp: false`)",
)
