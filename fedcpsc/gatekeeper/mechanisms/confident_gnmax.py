# SPDX-License-Identifier: Apache-2.0
"""The class with the most votes after noise, where enough teachers agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedcpsc.gatekeeper.mechanisms.mechanism import OF_SHARDS, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import NoisyPolicy, Scale, exactly
from fedcpsc.teachers.proof import ShardsProof

if TYPE_CHECKING:
    from fedcpsc.privacy.votes import ConfidentGnMax

__all__ = ["CONFIDENT_GNMAX", "ConfidentGnMaxPolicy"]


class ConfidentGnMaxPolicy(NoisyPolicy):
    """As gnmax, and only where the teachers agree.

    Attributes:
        threshold: number of votes that must agree, >= 1.
        threshold_sigma: standard deviation of the noise on that comparison, in votes.
    """

    kind: Literal["confident_gnmax"] = "confident_gnmax"
    threshold: Annotated[int, Field(ge=1)]
    threshold_sigma: Scale


def _make(section: ConfidentGnMaxPolicy, proof: ShardsProof) -> ConfidentGnMax:
    from fedcpsc.privacy.votes import ConfidentGnMax  # noqa: PLC0415 - brings mpmath

    return ConfidentGnMax(proof.shards, section.exact_sigma, section.threshold, exactly(section.threshold_sigma))


CONFIDENT_GNMAX = MechanismKind(
    name="confident_gnmax",
    summary="as `gnmax`, and no answer where the shards disagree",
    when="to compare with PATE, where a wrong label is worse than none",
    section=ConfidentGnMaxPolicy,
    teacher=OF_SHARDS,
    make=_make,
    cost="2 / sigma² + 1 / sigma_1²",
    guarantee="mu-GDP per record, any number of adaptive queries; every query pays for both tests",
    may_abstain=True,
)
