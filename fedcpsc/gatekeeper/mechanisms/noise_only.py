# SPDX-License-Identifier: Apache-2.0
"""Noise on the answers of one teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedcpsc.gatekeeper.mechanisms.mechanism import ANY, MechanismKind
from fedcpsc.gatekeeper.mechanisms.sections import Levels, NoisyPolicy

if TYPE_CHECKING:
    from fedcpsc.privacy.votes import NoiseOnly

__all__ = ["NOISE_ONLY", "NoiseOnlyPolicy"]


class NoiseOnlyPolicy(NoisyPolicy):
    """Noise on a single teacher trained without privacy; epsilon is large unless sigma is.

    Attributes:
        levels: largest sum of the integers that the probabilities are cut to before noise.
    """

    kind: Literal["noise_only"] = "noise_only"
    levels: Levels = 32


def _make(section: NoiseOnlyPolicy, proof: None) -> NoiseOnly:
    from fedcpsc.privacy.votes import NoiseOnly  # noqa: PLC0415 - brings mpmath

    return NoiseOnly(mean_sigma=section.exact_sigma, levels=section.levels)


NOISE_ONLY = MechanismKind(
    name="noise_only",
    summary="noise on the probabilities of a single teacher",
    when="where the teacher is finished, few answers are needed, and an epsilon must stand",
    section=NoiseOnlyPolicy,
    teacher=ANY,
    make=_make,
    cost="2 / sigma²",
    guarantee="mu-GDP for every relation; epsilon is large",
)
