# SPDX-License-Identifier: Apache-2.0
"""Lower bounds on epsilon and mu from how well an attack separates members from non-members.

Each bound holds with the stated confidence over the coins that decided membership and the randomness of the training.
It is a statement only if nothing was chosen after looking: how many guesses, and the threshold between them, are fixed
beforehand. A bound of 0 says that this attack found nothing, never that nothing is there; what it could have been at
most, `reach` says.

| bound | how often trained | what it rejects |
|---|---|---|
| `one_run_epsilon` | once, with canaries included by independent fair coins | (epsilon, delta)-DP |
| `one_run_mu` | the same | mu-GDP, a stronger claim: more is rejected by the same guesses |
| `two_world_epsilon` | many times in each of two neighbouring worlds | (epsilon, delta)-DP |
| `two_world_mu` | the same | mu-GDP |

A mu becomes an epsilon by `privacy.accounting.gaussian_epsilon`. That epsilon is what a *Gaussian* mechanism so leaky
would have. DP-SGD with subsampling is not exactly Gaussian: against a claim for it, the verdict is the epsilon bound's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import expit, ndtr, ndtri
from scipy.stats import beta, binom

from fedcpsc.errors import AuditError, explain

__all__ = ["one_run_chance", "one_run_epsilon", "one_run_mu", "two_world_epsilon", "two_world_mu"]

_PRECISION = 1e-9
_FAR = 40  # standard deviations beyond which a binomial count is never seen: less than 1e-100


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that right guesses about one training's canaries reject.

    Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846): under (epsilon, delta)-DP, with q = sigmoid(epsilon),

        P[correct >= v] <= P[B >= v] + 2 m delta max_{1<=i<=v} P[v - i <= B < v] / i,    B ~ Binomial(guesses, q).

    For every epsilon the rejected v are those above some number, so that the largest rejected epsilon is a valid bound
    although it is found after looking.

    Args:
        canaries: number m of canaries, >= 1, each included by an independent fair coin; also those no guess was made
            about.
        guesses: number of guesses, fixed beforehand, in [0, canaries].
        correct: number of right guesses, in [0, guesses].
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of the bound, in (0, 1).

    Returns:
        >= 0; 0 where nothing is rejected.

    Raises:
        AuditError: where an argument is out of range.
    """
    level = _level(confidence)
    return _largest(lambda epsilon: one_run_chance(canaries, guesses, correct, epsilon, delta) < level)


def one_run_chance(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The most that (epsilon, delta)-DP allows the chance of so many right guesses to be: see `one_run_epsilon`.

    Args:
        canaries: number of canaries, >= 1, also those no guess was made about.
        guesses: number of guesses, fixed beforehand, in [0, canaries].
        correct: number of right guesses, in [0, guesses].
        epsilon: parameter of the claim, >= 0.
        delta: parameter of the claim, in [0, 1).

    Returns:
        >= 0; may exceed 1, where it says nothing.

    Raises:
        AuditError: where an argument is out of range.
    """
    _check_guesses(canaries, guesses, correct)
    _check_delta(delta)
    q = expit(epsilon)
    chance = float(binom.sf(correct - 1, guesses, q))
    if delta > 0 and correct > 0:
        # beyond the binomial's lower end the sum grows no more, and what it is divided by does
        low = guesses * q - _FAR * (math.sqrt(guesses * q * (1 - q)) + 1)
        lengths = np.arange(1, min(correct, max(1, math.ceil(correct - low))) + 1)
        just_below = np.cumsum(binom.pmf(correct - lengths, guesses, q))  # P[v - i <= B < v] for i = 1..v
        chance += 2 * canaries * delta * float(np.max(just_below / lengths))
    return chance


def one_run_mu(canaries: int, guesses: int, correct: int, confidence: float = 0.95) -> float:
    """The largest mu whose Gaussian trade-off right guesses about one training's canaries reject.

    Mahloujifar, Melis & Chaudhuri 2024 (arXiv 2410.22235, `audit_rh_with_cap`), for membership by fair coins and the
    trade-off of mu-GDP: one claim about every delta at once, hence sharper than `one_run_epsilon` where it applies.

    Args:
        canaries: number of canaries, >= 1, also those no guess was made about.
        guesses: number of guesses, fixed beforehand, in [0, canaries].
        correct: number of right guesses, in [0, guesses].
        confidence: confidence of the bound, in (0, 1).

    Returns:
        >= 0; 0 where nothing is rejected.

    Raises:
        AuditError: where an argument is out of range.
    """
    _check_guesses(canaries, guesses, correct)
    level = _level(confidence)

    def rejected(mu: float) -> bool:
        r, h = level * correct / canaries, level * (guesses - correct) / canaries
        for i in range(correct - 1, -1, -1):
            raised = max(h, float(ndtr(ndtri(r) - mu)))
            if raised == h:  # then neither changes any more
                return False
            h, r = raised, r + i / (guesses - i) * (raised - h)
            if r + h > guesses / canaries:
                return True
        return False

    return _largest(rejected)


def two_world_epsilon(
    false_positives: int, negatives: int, false_negatives: int, positives: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest epsilon that both error rates of a test between two neighbouring worlds reject.

    Under (epsilon, delta)-DP: 1 - delta <= b + exp(epsilon) a and the same with a and b exchanged (Kairouz, Oh &
    Viswanath 2015, arXiv 1311.0776); a and b are Clopper-Pearson upper bounds, each at half of what is left to error.

    Args:
        false_positives: outputs of the world without that the test, fixed beforehand, took for the world with.
        negatives: outputs of the world without, >= 1.
        false_negatives: outputs of the world with that it took for the world without.
        positives: outputs of the world with, >= 1.
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of both error rates together, in (0, 1).

    Returns:
        >= 0; 0 where nothing is rejected.

    Raises:
        AuditError: where an argument is out of range.
    """
    _check_delta(delta)
    a, b = _error_rates(false_positives, negatives, false_negatives, positives, confidence)
    return max(_log_ratio(1 - delta - b, a), _log_ratio(1 - delta - a, b), 0.0)


def two_world_mu(
    false_positives: int, negatives: int, false_negatives: int, positives: int, confidence: float = 0.95
) -> float:
    """The largest mu that both error rates of a test between two neighbouring worlds reject.

    Nasr et al. 2023 (arXiv 2302.07956): mu >= Phi^-1(1 - a) - Phi^-1(b), a and b as in `two_world_epsilon`.

    Args:
        false_positives: number of outputs of the world without that the test took for the world with.
        negatives: number of outputs of the world without, >= 1.
        false_negatives: number of outputs of the world with that the test took for the world without.
        positives: number of outputs of the world with, >= 1.
        confidence: confidence of both error rates together, in (0, 1).

    Returns:
        >= 0; 0 where nothing is rejected.

    Raises:
        AuditError: where an argument is out of range.
    """
    a, b = _error_rates(false_positives, negatives, false_negatives, positives, confidence)
    return max(float(-ndtri(a) - ndtri(b)), 0.0)


def _largest(rejected: Callable[[float], bool]) -> float:
    """The largest value that is rejected, from below: what is returned is rejected itself, or 0."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejected(high):
        low, high = high, 2 * high
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def _error_rates(
    false_positives: int, negatives: int, false_negatives: int, positives: int, confidence: float
) -> tuple[float, float]:
    each = _level(confidence) / 2
    rates = []
    counts = (("false_positives", false_positives, negatives), ("false_negatives", false_negatives, positives))
    for name, hits, trials in counts:
        if trials < 1 or not 0 <= hits <= trials:
            raise AuditError(
                explain(name, hits, f"must be in [0, {trials}], of at least one output", "count the outputs again")
            )
        rates.append(1.0 if hits == trials else float(beta.ppf(1 - each, hits + 1, trials - hits)))
    return rates[0], rates[1]


def _log_ratio(above: float, below: float) -> float:
    return math.log(above / below) if above > 0 else -math.inf


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise AuditError(explain("confidence", confidence, "must be in (0, 1)", "use 0.95"))
    return 1 - confidence


def _check_guesses(canaries: int, guesses: int, correct: int) -> None:
    if canaries < 1 or not 0 <= correct <= guesses <= canaries:
        raise AuditError(
            explain(
                "canaries, guesses, correct",
                (canaries, guesses, correct),
                "must be 1 <= canaries and 0 <= correct <= guesses <= canaries",
                "count the guesses again",
            )
        )


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise AuditError(explain("delta", delta, "must be in [0, 1)", "use the delta of the claim"))
