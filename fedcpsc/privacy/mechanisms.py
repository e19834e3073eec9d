# SPDX-License-Identifier: Apache-2.0
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

__all__ = ["DpSgdTeacher", "Floats", "Hardening", "Mechanism", "Plain"]

Floats = npt.NDArray[np.float32]


class Mechanism(ABC):
    """What the gatekeeper needs to know of a mechanism.

    Attributes:
        name: name of the mechanism in policies.
        dp: whether each answer is covered by a differential-privacy guarantee.
        shards: whether it needs the outputs of K disjoint teachers rather than of one.
    """

    name: ClassVar[str]
    dp: ClassVar[bool]
    shards: ClassVar[bool] = False

    @property
    def sensitivity(self) -> float:
        """L2, in the units of `sigma`; 0 where answers cost nothing."""
        return 0.0

    @property
    def sigma(self) -> float:
        """Noise scale; 0 where there is none."""
        return 0.0

    @property
    def scales(self) -> dict[str, float]:
        """Standard deviation of each noise that is drawn, in levels or votes, by the policy's key; {} where none is."""
        return {}

    @property
    def noise_sigma(self) -> float:
        """Standard deviation of the noise on each released value, on the scale of probabilities."""
        return 0.0

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


@dataclass(frozen=True)
class Hardening(Mechanism):
    """Coarser probabilities: tempered and rounded.

    Formal guarantee: none. Label-only attacks match attacks on confidences (Choquette-Choo et al., ICML 2021); this
    costs an attacker queries, not the possibility.

    Args:
        temperature: > 0; probabilities are raised to 1 / temperature and renormalised.
        decimals: digits kept after the point.
    """

    temperature: float = 1.0
    decimals: int = 8

    name = "hardening"
    dp = False

    def cost(self) -> Fraction:
        """0: nothing is guaranteed, so nothing is counted but the answers."""
        return Fraction(0)

    def release(self, outputs: Floats) -> Floats:
        """`outputs[0]` ** (1 / temperature), renormalised, rounded."""
        logs = np.log(np.maximum(outputs[0].astype(np.float64), 1e-30)) / self.temperature
        tempered = np.exp(logs - logs.max(1, keepdims=True))
        hardened: Floats = np.round(tempered / tempered.sum(1, keepdims=True), self.decimals).astype(np.float32)
        return hardened


@dataclass(frozen=True)
class DpSgdTeacher(Mechanism):
    """The answers of a teacher that was trained with differential privacy.

    Formal guarantee: that of the training, (epsilon, delta) per record under add/remove, stated in the manifest with
    the accountant's state. Proof: answers are a function of the trained weights and of queries that were chosen from
    earlier answers, hence post-processing; their number, form and repetition cost nothing.

    | edge | |
    |---|---|
    | the manifest has no proof of the training | refused before this object is made |
    | normalisation, early stopping or selection on private data | breaks the guarantee; constants are public |
    | another teacher trained on the same data | composes: both are releases in the ledger |
    """

    name = "dp_sgd"
    dp = True

    def cost(self) -> Fraction:
        """0: paid for by the training."""
        return Fraction(0)

    def release(self, outputs: Floats) -> Floats:
        """`outputs[0]`."""
        probabilities: Floats = outputs[0]
        return probabilities
