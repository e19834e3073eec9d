# SPDX-License-Identifier: Apache-2.0
"""What GNMax lost on the votes that really came: for the silo's owner alone.

The data-dependent Renyi bound of Papernot et al. 2018 (arXiv 1802.08908, theorem 6 with the orders of proposition 10).
It is itself computed from private data: it is never sent, never decides a refusal, and stands in no ledger. On a
generator's images teachers disagree, and it is hardly better than the data-independent bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp

__all__ = ["ORDERS", "Floats", "epsilon_of_curve", "log_chance_of_another_winner", "realised_curve", "realised_rdp"]

ORDERS = tuple(1 + x / 10 for x in range(1, 100)) + tuple(range(11, 64)) + (64, 128, 256, 512)

Floats = npt.NDArray[np.float64]


def log_chance_of_another_winner(votes: npt.NDArray[np.int64], sigma: float) -> float:
    """log q, q >= P[the noisy winner is not the true one], by a union bound.

    Args:
        votes: numbers of votes of one query, int64 [K].
        sigma: standard deviation of the noise on each count, > 0.
    """
    behind = votes.max() - np.delete(votes, votes.argmax())
    union = float(logsumexp(log_ndtr(-behind / (math.sqrt(2) * sigma))))
    return min(union, math.log1p(-1 / len(votes)))


def realised_rdp(logq: float, sigma: float, orders: Sequence[float] = ORDERS) -> Floats:
    """Renyi divergence of one GNMax answer at each order, given q; never above the data-independent order / sigma^2.

    Args:
        logq: log q from `log_chance_of_another_winner`, <= 0.
        sigma: standard deviation of the noise on each count, > 0.
        orders: orders of the divergence, > 1.
    """
    alpha = np.asarray(orders, np.float64)
    plain = alpha / sigma**2
    if logq == -math.inf:
        return np.zeros_like(alpha)
    order2 = sigma * math.sqrt(-logq)
    order1 = order2 + 1
    rdp1, rdp2 = order1 / sigma**2, order2 / sigma**2
    if order2 <= 1:
        return plain
    # the bound rises in q only so far, and needs its denominator positive (theorem 6's conditions)
    highest = (order2 - 1) * rdp2 - order2 * (math.log1p(1 / (order1 - 1)) + math.log1p(1 / (order2 - 1)))
    if logq > highest or -logq <= rdp2:
        return plain
    log1q = _log1mexp(logq)
    log_a = (alpha - 1) * (log1q - _log1mexp((logq + rdp2) * (1 - 1 / order2)))
    log_b = (alpha - 1) * (rdp1 - logq / (order1 - 1))
    bound = np.logaddexp(log1q + log_a, logq + log_b) / (alpha - 1)
    found: Floats = np.where(alpha < order1, np.minimum(plain, bound), plain)
    return found


def realised_curve(votes: npt.NDArray[np.int64], sigma: float) -> Floats:
    """Sum over queries of `realised_rdp` at `ORDERS`.

    Args:
        votes: numbers of votes of N queries, int64 [N, K].
        sigma: standard deviation of the noise on each count, > 0.
    """
    curve = np.zeros(len(ORDERS))
    for one in votes:
        curve += realised_rdp(log_chance_of_another_winner(one, sigma), sigma)
    return curve


def epsilon_of_curve(curve: Floats, delta: float) -> float:
    """epsilon of a Renyi curve at `ORDERS` (Canonne, Kamath & Steinke 2020, proposition 12)."""
    alpha = np.asarray(ORDERS)
    found = curve + np.log1p(-1 / alpha) - (math.log(delta) + np.log(alpha)) / (alpha - 1)
    return max(0.0, float(found.min()))


def _log1mexp(x: float) -> float:
    """log(1 - e^x) for x < 0."""
    return math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x))
