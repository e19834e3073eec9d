# SPDX-License-Identifier: Apache-2.0
"""What the sections `mechanism` of policies have in common."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from fedcpsc.typed_yaml import Strict

__all__ = ["DpPolicy", "Levels", "MechanismPolicy", "NoisyPolicy", "Scale", "exactly"]

Scale = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Levels = Annotated[int, Field(ge=1, le=1000)]


class MechanismPolicy(Strict):
    """Section of a policy that chooses a mechanism. Each mechanism narrows `kind` to its own name.

    Attributes:
        kind: name of the mechanism.
    """

    kind: str


class DpPolicy(MechanismPolicy):
    """What every differentially private mechanism promises, per record, under add/remove.

    Attributes:
        epsilon: most that may ever be lost on the silo's population, by all that is released of it, > 0.
        delta: delta of the same guarantee; below 1 / (private records).
        accept_large_delta: the owner's consent to a delta of 1 / (private records) or more.
    """

    epsilon: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    accept_large_delta: bool = False


class NoisyPolicy(DpPolicy):
    """Noise on every answer, until epsilon is spent.

    Attributes:
        sigma: standard deviation of the noise: of each mean probability, or for the gnmax kinds of each vote count.
    """

    sigma: Scale

    @property
    def exact_sigma(self) -> Fraction:
        """`sigma` as it is written in decimals: 0.1 is 1/10."""
        return exactly(self.sigma)


def exactly(value: float) -> Fraction:
    """A number as it is written in decimals: 0.1 is 1/10."""
    return Fraction(repr(value))
