# SPDX-License-Identifier: Apache-2.0
"""How often the one-run audit refutes a claim that is wrong, and one that is right: by simulation.

The mechanism is the Gaussian one, whose truth is known exactly: a canary's score is N(0, 1), and N(mu, 1) where its
coin let it in. No attack on such a mechanism does better than to go by that score, so the power is the best that the
guesses allow: less than 1 means that this audit overlooks such a lie in that share of cases, whatever the attack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from fedcpsc.audit.reach import least_right, planned_guesses
from fedcpsc.audit.roc import guesses_from
from fedcpsc.privacy.accounting import gaussian_mu

__all__ = ["Power", "gaussian_power"]


@dataclass(frozen=True)
class Power:
    """What came of repeated audits.

    Attributes:
        refuted: number of audits that refuted the claim.
        repetitions: number of audits, >= 1.
        least_right: number of right guesses from which on they did; None where not even all would.
    """

    refuted: int
    repetitions: int
    least_right: int | None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson bounds of the share of audits that refute, with 95 % confidence."""
        k, n = self.refuted, self.repetitions
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        return low, float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0


def gaussian_power(
    truth: float,
    claim: float,
    delta: float,
    *,
    canaries: int,
    guesses: int,
    repetitions: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> Power:
    """Audits of a Gaussian mechanism.

    Args:
        truth: true epsilon at `delta`, > 0.
        claim: claimed epsilon at `delta`, >= 0.
        delta: common delta, in (0, 1).
        canaries: number of canaries, >= 2, each with its own fair coin.
        guesses: even number of guesses, half as members and half as not.
        repetitions: number of audits, >= 1.
        rng: source of coins and scores: of a simulation, which protects nobody.
        confidence: confidence of each audit's bound.

    Raises:
        AuditError: where an argument is out of range.
    """
    mu = gaussian_mu(truth, delta)
    half = planned_guesses(canaries, guesses / canaries)
    least, refuted = least_right(canaries, sum(half), claim, delta, confidence), 0
    for _ in range(repetitions):
        coins = rng.random(canaries) < 0.5
        scores = rng.normal(size=canaries) + mu * coins
        right = guesses_from(scores, coins, *half)[1]
        refuted += least is not None and right >= least
    return Power(refuted, repetitions, least)
