# SPDX-License-Identifier: Apache-2.0
"""Exact accounting of Gaussian releases, and a second opinion.

Releases x_i + N(0, sigma_i^2 I) of L2 sensitivity D_i, chosen adaptively, are together mu-GDP with
mu^2 = sum (D_i / sigma_i)^2 (Dong, Roth & Su 2019, arXiv 1905.02383), and mu-GDP is the curve of Balle & Wang 2018
(arXiv 1805.06530, theorem 8):

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu).

A cap on the sum is a valid filter: the asker may choose every D_i and sigma_i adaptively and stop when it likes (Smith
& Thakurta 2022, arXiv 2210.17520; Koskela, Tobaben & Honkela 2022, arXiv 2209.15596). There is never subsampling
amplification: whoever asks chooses the queries.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.special import log_ndtr

from fedcpsc.errors import PolicyError, explain

__all__ = [
    "Epsilon",
    "History",
    "compose",
    "dp_sgd_epsilon",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "least_noise_multiplier",
    "max_answers",
    "numerical_epsilon",
    "pld_epsilon",
    "rdp_epsilon",
]

History = Sequence[tuple[float, float, int]]
"""Opacus' accountant history: (noise multiplier, sample rate, steps)."""

_LARGEST_MU = 1e6
_ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(2.0**x for x in range(6, 16)),
)  # of Renyi's DP
_LARGEST_NUMERICAL_MU2 = 25.0  # epsilon 33: beyond, an epsilon promises nothing that a tighter one would
_LARGEST_NUMERICAL_EPSILON = 40.0


@dataclass(frozen=True)
class Epsilon:
    """An epsilon is nothing without these beside it.

    Attributes:
        value: > 0; `math.inf` where nothing is guaranteed.
        delta: delta of the guarantee, in (0, 1).
        unit: what is protected, e.g. "record".
        relation: the neighbouring relation, e.g. "add_remove".
    """

    value: float
    delta: float
    unit: str
    relation: str

    def __str__(self) -> str:
        return f"epsilon {self.value:.4g} (delta {self.delta:g}, per {self.unit}, {self.relation})"


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta of mu-GDP at `epsilon`, exactly.

    Args:
        mu: > 0.
        epsilon: >= 0.
    """
    _positive("mu", mu)
    above, below = log_ndtr(mu / 2 - epsilon / mu), epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(-math.exp(above) * math.expm1(min(0.0, below - above)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon with delta(epsilon) <= delta, rounded up; 0 where delta alone suffices.

    Args:
        mu: > 0, up to 1e6.
        delta: delta of the guarantee, in (0, 1).
    """
    _positive("mu", mu)
    _share("delta", delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    # concentrated DP's conversion is an upper bound
    top = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-6
    return _least(lambda epsilon: gaussian_delta(mu, epsilon) <= delta, 0.0, top)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu that is (epsilon, delta)-DP, rounded down.

    Args:
        epsilon: > 0.
        delta: delta of the guarantee, in (0, 1).
    """
    _positive("epsilon", epsilon)
    _share("delta", delta)
    too_much = _least(lambda mu: gaussian_delta(mu, epsilon) > delta, 1e-9, _LARGEST_MU)
    return too_much * (1 - 1e-12)  # far above the rounding of `gaussian_delta`


def max_answers(cost: Fraction, epsilon: float, delta: float) -> int:
    """How many answers of mu^2 = `cost` each stay within (epsilon, delta): where the filter refuses the next.

    Args:
        cost: mu^2 of one answer, > 0.
        epsilon: > 0.
        delta: delta of the guarantee, in (0, 1).
    """
    _positive("cost", float(cost))
    return int(Fraction(gaussian_mu(epsilon, delta)) ** 2 / cost)


def rdp_epsilon(mu2: float, delta: float, histories: Sequence[History] = ()) -> float:
    """Second opinion: the same by Rényi DP (Opacus), alone or beside DP-SGD trainings. About 8 % loose.

    Args:
        mu2: sum of mu^2 over Gaussian releases, >= 0.
        delta: delta of the guarantee, in (0, 1).
        histories: accountant's states of DP-SGD trainings on the same data.
    """
    curve = [mu2 * order / 2 for order in _ORDERS]
    for noise_multiplier, sample_rate, steps in _merged(histories):
        if not 0 < sample_rate <= 1:  # Opacus would accept it silently
            raise PolicyError(explain("sample_rate", sample_rate, "must be in (0, 1]", "fix the manifest"))
        each = _step_rdp(noise_multiplier, sample_rate)
        curve = [a + steps * b for a, b in zip(curve, each, strict=True)]
    # Canonne, Kamath & Steinke 2020, proposition 12, as Opacus has it; the minimum over orders fixed beforehand
    return max(
        0.0,
        min(
            value + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
            for order, value in zip(_ORDERS, curve, strict=True)
        ),
    )


@lru_cache(maxsize=256)
def _step_rdp(noise_multiplier: float, sample_rate: float) -> tuple[float, ...]:
    """Rényi DP of one step of DP-SGD at each of the orders; takes a second where orders are not whole."""
    from opacus.accountants.analysis import rdp  # noqa: PLC0415 - imports torch

    each = rdp.compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(_ORDERS))
    return tuple(float(value) for value in each)


def compose(mu2: float, delta: float, histories: Sequence[History]) -> float:
    """epsilon of Gaussian releases and DP-SGD trainings on the same data, together.

    Gaussian releases alone: exact. A single training alone, or a mixture: Rényi DP, whose sum at every fixed order is
    a valid bound on adaptive composition (Feldman & Zrnic 2021, arXiv 2008.11193).
    """
    if not histories:
        return gaussian_epsilon(math.sqrt(mu2), delta) if mu2 > 0 else 0.0
    return rdp_epsilon(mu2, delta, histories)


def dp_sgd_epsilon(history: History, delta: float) -> float:
    """epsilon of one DP-SGD training by Opacus' PRV accountant: its upper estimate, as the training itself reports.

    Args:
        history: state of the training's accountant.
        delta: delta of the guarantee, in (0, 1).
    """
    return _prv_epsilon(tuple(tuple(step) for step in history), delta)


@lru_cache(maxsize=256)
def _prv_epsilon(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    from opacus.accountants import PRVAccountant  # noqa: PLC0415 - imports torch

    accountant = PRVAccountant()
    accountant.history = list(history)
    with _opacus_warnings():
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=64)
def least_noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The least noise of DP-SGD, up to 0.01 in epsilon, whose epsilon by Opacus' PRV accountant is at most `epsilon`.

    Standard deviation of the noise over the clipping norm. Takes half a minute, so that what was found is kept.

    Args:
        epsilon: > 0.
        delta: delta of the guarantee, in (0, 1).
        sample_rate: probability that a step takes a given unit, in (0, 1].
        steps: number of steps, >= 1.

    Raises:
        PolicyError: no noise is large enough at this delta.
    """
    from opacus.accountants.utils import get_noise_multiplier  # noqa: PLC0415 - imports torch

    with _opacus_warnings():
        try:
            found = get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps, accountant="prv"
            )
        except ValueError as error:
            constraint = f"no noise is large enough at delta {delta:g}"
            raise PolicyError(explain("epsilon", epsilon, constraint, "raise it")) from error
    return float(found)


@contextmanager
def _opacus_warnings() -> Iterator[None]:
    """Without these: Opacus bounds its grid by Renyi's epsilon, and that this is loose costs only speed; at rate 1 it
    takes the logarithm of 0."""
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.filterwarnings("ignore", message="Optimal order is the")
        yield


def pld_epsilon(mu: float, delta: float, histories: Sequence[History] = ()) -> float:
    """Third opinion, by privacy loss distributions, rounded up; needs the extra `dp-accounting`.

    Args:
        mu: square root of the sum of mu^2 over Gaussian releases, >= 0.
        delta: delta of the guarantee, in (0, 1).
        histories: DP-SGD trainings on the same data.

    Raises:
        ImportError: where dp-accounting is not installed.
    """
    from dp_accounting import (  # noqa: PLC0415 - an optional extra
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
    )
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    # REPLACE_ONE would double the sensitivity that mu already holds
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    for noise_multiplier, sample_rate, steps in _merged(histories):
        step = PoissonSampledDpEvent(sample_rate, GaussianDpEvent(noise_multiplier))
        accountant.compose(SelfComposedDpEvent(step, steps))
    if mu > 0:
        accountant.compose(GaussianDpEvent(1 / mu))
    return float(accountant.get_epsilon(delta))


def numerical_epsilon(mu2: float, delta: float, histories: Sequence[History]) -> float | None:
    """epsilon by a numerical composition of privacy losses: an upper bound, tighter than Rényi's; None where too large.

    By dp-accounting where it is installed, otherwise by Opacus' PRV accountant (its upper estimate, within 0.01).
    Unlike a bound by Rényi DP it holds for a schedule of trainings that does not depend on what was released before.

    Args:
        mu2: sum of mu^2 over Gaussian releases, >= 0; beyond 25 both accountants need minutes and gigabytes.
        delta: delta of the guarantee, in (0, 1).
        histories: DP-SGD trainings on the same data, at least one.
    """
    if mu2 > _LARGEST_NUMERICAL_MU2 or rdp_epsilon(0.0, delta, histories) > _LARGEST_NUMERICAL_EPSILON:
        return None
    if importlib.util.find_spec("dp_accounting") is not None:
        return pld_epsilon(math.sqrt(mu2), delta, histories)
    steps = list(_merged(histories))
    if mu2 > 0:
        steps.append((1 / math.sqrt(mu2), 1.0, 1))
    return dp_sgd_epsilon(steps, delta)


def _merged(histories: Sequence[History]) -> History:
    """All steps, those of one noise and rate together: their order does not matter."""
    steps: dict[tuple[float, float], int] = {}
    for history in histories:
        for noise_multiplier, sample_rate, count in history:
            key = (float(noise_multiplier), float(sample_rate))
            steps[key] = steps.get(key, 0) + int(count)
    return [(noise, rate, count) for (noise, rate), count in steps.items()]


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least x in [low, high] where a condition that is false, then true, holds; from above, to float precision."""
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise PolicyError(explain(name, value, "must be > 0 and finite", "give a positive number"))


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise PolicyError(explain(name, value, "must be in (0, 1)", "use less than 1 / records, for example 1e-5"))
