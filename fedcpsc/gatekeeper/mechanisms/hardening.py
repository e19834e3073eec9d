# SPDX-License-Identifier: Apache-2.0
"""Flatter and rounded answers, without a guarantee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedcpsc.gatekeeper.mechanisms.mechanism import ANY, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import MechanismPolicy, Scale

if TYPE_CHECKING:
    from fedcpsc.privacy.mechanisms import Hardening

__all__ = ["HARDENING", "HardeningPolicy"]


class HardeningPolicy(MechanismPolicy):
    """Flatter and rounded probabilities. No differential privacy.

    Attributes:
        temperature: temperature of the softmax, > 0; above 1 is flatter.
        decimals: number of decimals that probabilities are rounded to.
    """

    kind: Literal["hardening"] = "hardening"
    temperature: Scale = 1.0
    decimals: Annotated[int, Field(ge=0, le=8)] = 2


def _make(section: HardeningPolicy, proof: None) -> Hardening:
    from fedcpsc.privacy.mechanisms import Hardening  # noqa: PLC0415 - brings numpy

    return Hardening(section.temperature, section.decimals)


HARDENING = MechanismKind(
    name="hardening",
    summary="flatter and rounded probabilities",
    when="where an attacker should need more queries and nothing must be proven",
    section=HardeningPolicy,
    teacher=ANY,
    make=_make,
    cost="nothing is counted but answers",
    guarantee="nothing (`dp: false`)",
    caution="temperature and rounding cost an attacker queries, not the possibility",
)
