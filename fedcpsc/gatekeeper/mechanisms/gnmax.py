# SPDX-License-Identifier: Apache-2.0
"""The class with the most votes after noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import OF_SHARDS, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import NoisyPolicy
from fedcpsc.teachers.proof import ShardsProof

if TYPE_CHECKING:
    from fedcpsc.privacy.votes import GnMax

__all__ = ["GNMAX", "GnMaxPolicy"]


class GnMaxPolicy(NoisyPolicy):
    """The class with the most votes of K teachers after noise."""

    kind: Literal["gnmax"] = "gnmax"


def _make(section: GnMaxPolicy, proof: ShardsProof) -> GnMax:
    from fedcpsc.privacy.votes import GnMax  # noqa: PLC0415 - brings mpmath

    return GnMax(proof.shards, section.exact_sigma)


GNMAX = MechanismKind(
    name="gnmax",
    summary="the class with the most votes of the shards, after noise",
    when="to compare with PATE, or where labels alone may be answered",
    section=GnMaxPolicy,
    teacher=OF_SHARDS,
    make=_make,
    cost="2 / sigma²",
    guarantee="mu-GDP per record, any number of adaptive queries, for the argmax",
)
