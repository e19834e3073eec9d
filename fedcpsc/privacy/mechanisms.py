"""How a teacher's outputs become what is answered: frozen objects, each with its cost and the proof of it.

A mechanism sees nothing but outputs; the gatekeeper charges its cost before they exist. `release` may be called at most
once for an answer that leaves: a replayed query gets the stored reply, never fresh noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Mechanism", "Plain"]

Floats = npt.NDArray[np.float32]


class Mechanism(ABC):
    """What the gatekeeper needs to know of a mechanism.

    Attributes:
        name: as in the policy.
        dp: whether each answer is covered by a differential-privacy guarantee.
        shards: whether it needs the outputs of K disjoint teachers rather than of one.
        sensitivity: L2, in the units of `sigma`; 0 where answers cost nothing.
        sigma: noise scale; 0 where there is none.
        noise_sigma: standard deviation of the noise on each released value, on the scale of probabilities.
    """

    name: ClassVar[str]
    dp: ClassVar[bool]
    shards: ClassVar[bool] = False
    sensitivity: float = 0.0
    sigma: float = 0.0
    noise_sigma: float = 0.0

    @abstractmethod
    def cost(self) -> Fraction:
        """mu^2 of one answer, exactly; 0 where answers cost nothing."""

    def describe(self) -> str:
        """Name and every parameter: equal exactly when the mechanism is the same."""
        return f"{self.name} {self}"

    @abstractmethod
    def release(self, outputs: Floats) -> Floats:
        """What is answered: float32 [N, K].

        Args:
            outputs: probabilities, float32 [T, N, K], of T teachers (T = 1 unless `shards`).
        """


@dataclass(frozen=True)
class Plain(Mechanism):
    """The teacher's probabilities as they are.

    Formal guarantee: none. Whoever asks learns the teacher's function at the points it chooses; membership inference,
    extraction and inversion remain possible.
    """

    name = "none"
    dp = False

    def cost(self) -> Fraction:
        """0: nothing is guaranteed, so nothing is counted but the answers."""
        return Fraction(0)

    def release(self, outputs: Floats) -> Floats:
        """`outputs[0]`."""
        probabilities: Floats = outputs[0]
        return probabilities
