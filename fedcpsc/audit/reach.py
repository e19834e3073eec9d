# SPDX-License-Identifier: Apache-2.0
"""What a number of guesses could show at most: with it, a bound below a claim says something, or that it says nothing.

An audit refutes a claim where its bound lies above it, and no bound lies above the one that all guesses being right
would make. A claim that this largest bound does not exceed could not have been refuted, whatever leaked.

| 95 %, delta 1e-5, all canaries guessed at | 10 | 100 | 1,000 | 10,000 | 100,000 guesses |
|---|---|---|---|---|---|
| largest bound on epsilon | 1.05 | 3.49 | 5.78 | 7.83 | 8.13 |

More guesses do not always reach further: what delta concedes grows with the canaries, until no number of guesses
refutes a claim above some epsilon (about log(level / (2 delta)); less where a share of the canaries is guessed at).
"""

from __future__ import annotations

import math

from scipy.special import expit

from fedcpsc.audit.bounds import one_run_chance, one_run_epsilon, one_run_mu, two_world_epsilon
from fedcpsc.errors import AuditError, explain

__all__ = ["guesses_needed", "least_right", "planned_guesses", "reachable_epsilon", "reachable_mu", "reachable_worlds"]

_STEP = 1.005  # between numbers of guesses looked at: the chance has one valley, many such steps wide
_HOPELESS = 1e-3  # of the level: where all right is less likely, what delta concedes alone decides, and only grows


def planned_guesses(canaries: int, share: float) -> tuple[int, int]:
    """How many canaries are guessed to be members, and how many not to be: a function of their number alone.

    The number of canaries is random, and says nothing of how their coins fell: to go by it is to fix the guesses
    before looking.

    Args:
        canaries: number of coins, >= 0.
        share: share of the canaries that is guessed at, in (0, 1].

    Returns:
        The same number twice; (0, 0) for fewer than two canaries.
    """
    half = min(canaries // 2, max(1, round(share * canaries / 2)))
    return half, half


def reachable_epsilon(canaries: int, guesses: int, delta: float, confidence: float = 0.95) -> float:
    """The largest bound that `one_run_epsilon` could have given: all guesses right.

    Args:
        canaries: number of canaries, >= 0.
        guesses: number of guesses, in [0, canaries].
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of this bound alone (after Bonferroni), in (0, 1).

    Returns:
        >= 0; 0 without a guess.

    Raises:
        AuditError: where an argument is out of range.
    """
    return one_run_epsilon(canaries, guesses, guesses, delta, confidence) if guesses else 0.0


def reachable_mu(canaries: int, guesses: int, confidence: float = 0.95) -> float:
    """The largest bound that `one_run_mu` could have given: all guesses right.

    Args:
        canaries: number of canaries, >= 0.
        guesses: number of guesses, in [0, canaries].
        confidence: confidence of the bound alone (after Bonferroni), in (0, 1).

    Returns:
        >= 0; 0 without a guess.

    Raises:
        AuditError: where an argument is out of range.
    """
    return one_run_mu(canaries, guesses, guesses, confidence) if guesses else 0.0


def reachable_worlds(negatives: int, positives: int, delta: float, confidence: float = 0.95) -> float:
    """The largest bound that `two_world_epsilon` could have given: no output taken for one of the other world.

    Args:
        negatives: number of outputs of the world without, >= 1.
        positives: number of outputs of the world with, >= 1.
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of the bound alone (after Bonferroni), in (0, 1).

    Raises:
        AuditError: where an argument is out of range.
    """
    return two_world_epsilon(0, negatives, 0, positives, delta, confidence)


def least_right(canaries: int, guesses: int, epsilon: float, delta: float, confidence: float = 0.95) -> int | None:
    """The least number of right guesses that refutes a claim; None where not even all of them would.

    Args:
        canaries: number of canaries, >= 1.
        guesses: number of guesses, in [0, canaries].
        epsilon: claim, >= 0.
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of the bound alone (after Bonferroni), in (0, 1).

    Raises:
        AuditError: where an argument is out of range.
    """
    low, high = -1, guesses  # the chance falls with the number that are right
    if one_run_chance(canaries, guesses, guesses, epsilon, delta) >= 1 - confidence:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        refutes = one_run_chance(canaries, guesses, middle, epsilon, delta) < 1 - confidence
        low, high = (low, middle) if refutes else (middle, high)
    return high


def guesses_needed(epsilon: float, delta: float, confidence: float = 0.95, share: float = 1.0) -> int | None:
    """The least number of guesses that refutes a claim when all of them are right, up to 0.5 %.

    Args:
        epsilon: claim, >= 0.
        delta: parameter of the claim, in [0, 1).
        confidence: confidence of the bound alone (after Bonferroni), in (0, 1).
        share: share of the canaries that is guessed at, in (0, 1]: so many more canaries are needed.

    Returns:
        None where no number does: what delta concedes to so many canaries alone is more than the level of error.

    Raises:
        AuditError: where an argument is out of range.
    """
    if not 0 < share <= 1 or not 0 < confidence < 1 or not 0 <= epsilon < math.inf:
        got = (epsilon, confidence, share)
        wanted = "must be >= 0 and finite, in (0, 1), in (0, 1]"
        raise AuditError(explain("epsilon, confidence, share", got, wanted, "use the claim's epsilon, 0.95 and 1"))
    level, q = 1 - confidence, float(expit(epsilon))

    def refutes(guesses: int) -> bool:
        return one_run_chance(math.ceil(guesses / share), guesses, guesses, epsilon, delta) < level

    guesses = max(1, math.floor(math.log(level) / math.log(q)))  # q ** guesses is the chance where delta is 0
    below = guesses - 1
    while not refutes(guesses):
        if q**guesses < _HOPELESS * level:
            return None
        below, guesses = guesses, max(guesses + 1, math.ceil(guesses * _STEP))
    while guesses - below > 1:
        middle = (below + guesses) // 2
        below, guesses = (below, middle) if refutes(middle) else (middle, guesses)
    return guesses
