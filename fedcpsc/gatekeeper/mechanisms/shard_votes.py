# SPDX-License-Identifier: Apache-2.0
"""The noisy mean of teachers on disjoint shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import OF_SHARDS, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import Levels, NoisyPolicy
from fedcpsc.teachers.proof import ShardsProof

if TYPE_CHECKING:
    from fedcpsc.privacy.votes import ShardVotes

__all__ = ["SHARD_VOTES", "ShardVotesPolicy"]


class ShardVotesPolicy(NoisyPolicy):
    """The noisy mean of K teachers on disjoint shards.

    Attributes:
        levels: largest sum of the integers that each teacher's probabilities are cut to before noise.
    """

    kind: Literal["shard_votes"] = "shard_votes"
    levels: Levels = 32


def _make(section: ShardVotesPolicy, proof: ShardsProof) -> ShardVotes:
    from fedcpsc.privacy.votes import ShardVotes  # noqa: PLC0415 - brings mpmath

    return ShardVotes(proof.shards, section.exact_sigma, section.levels)


SHARD_VOTES = MechanismKind(
    name="shard_votes",
    summary="noisy mean of the shards' probabilities",
    when="where a silo has thousands of records, enough for some hundred small teachers",
    section=ShardVotesPolicy,
    teacher=OF_SHARDS,
    make=_make,
    cost="2 / (K sigma)²",
    guarantee="mu-GDP per record, any number of adaptive queries",
)
