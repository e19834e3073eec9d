# SPDX-License-Identifier: Apache-2.0
import math
import os
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import chi2

from fedcpsc.errors import PolicyError
from fedcpsc.privacy import noise
from fedcpsc.privacy.noise import rounded_gaussian

DRAWS = 200_000
FALSE_ALARM = 1e-6


def misfit(draws: np.ndarray, sigma: float) -> float:
    """Pearson's chi-squared against round(N(0, sigma^2)), as a p-value."""
    edge = max(1, math.ceil(3 * sigma))
    inner = np.arange(-edge, edge + 1)
    mass = ndtr((inner + 0.5) / sigma) - ndtr((inner - 0.5) / sigma)
    mass = np.append(mass, 1 - mass.sum())
    seen = np.array([(draws == value).sum() for value in inner] + [(np.abs(draws) > edge).sum()])
    keep = mass * len(draws) >= 5
    mass, seen = np.append(mass[keep], mass[~keep].sum()), np.append(seen[keep], seen[~keep].sum())
    if mass[-1] * len(draws) < 5:
        mass, seen = mass[:-1], seen[:-1]
    return float(chi2.sf(((seen - mass * len(draws)) ** 2 / (mass * len(draws))).sum(), len(mass) - 1))


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(1), Fraction(7, 2), Fraction(10)])
def test_the_distribution_is_the_rounded_gaussian_and_no_other_scale(sigma: Fraction) -> None:
    draws = rounded_gaussian(sigma, (DRAWS,))
    assert misfit(draws, float(sigma)) > FALSE_ALARM
    for wrong in (2 / 3, 3 / 2):
        assert misfit(draws, float(sigma) * wrong) < FALSE_ALARM


def test_draws_are_independent_of_one_another_and_of_the_calls_before() -> None:
    draws = rounded_gaussian(Fraction(20), (2, DRAWS)).astype(float)
    bound = 5 / math.sqrt(DRAWS)  # false alarm 6e-7 each
    assert abs(np.corrcoef(draws)[0, 1]) < bound
    assert abs(np.corrcoef(draws[0, :-1], draws[0, 1:])[0, 1]) < bound
    assert not np.array_equal(rounded_gaussian(Fraction(20), (50,)), rounded_gaussian(Fraction(20), (50,)))


def test_numbers_undecided_in_the_upper_bits_are_decided_in_the_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    thresholds, high = noise._table(Fraction(3))
    chosen = len(thresholds) // 2
    below, above = (thresholds[chosen] - 1) % 2**64, thresholds[chosen] % 2**64
    for low, expected in ((below, len(thresholds) - chosen), (above, len(thresholds) - chosen - 1)):
        given = iter([int(high[chosen]).to_bytes(8, "little"), low.to_bytes(8, "little"), b"\xff"])
        monkeypatch.setattr(os, "urandom", lambda size, given=given: next(given))
        assert rounded_gaussian(Fraction(3), (1,)).tolist() == [expected]


def test_the_table_matches_double_precision_and_reaches_the_stated_tail() -> None:
    thresholds, _ = noise._table(Fraction(5))
    tails = np.array([number / 2**128 for number in thresholds[::-1]])
    exact = 2 * ndtr(-(np.arange(len(tails)) + 0.5) / 5)
    np.testing.assert_allclose(tails[:40], exact[:40], rtol=1e-12)
    assert thresholds[0] == 0
    assert thresholds == sorted(thresholds)


@pytest.mark.parametrize("sigma", [Fraction(0), Fraction(-1), Fraction(10_000)])
def test_scales_out_of_range_are_refused(sigma: Fraction) -> None:
    with pytest.raises(PolicyError, match="sigma"):
        rounded_gaussian(sigma, (1,))


def test_there_is_no_seed() -> None:
    with pytest.raises(TypeError):
        rounded_gaussian(Fraction(1), (1,), seed=1)  # type: ignore[call-arg]
    np.random.seed(0)  # noqa: NPY002 - the global generator has no say
    first = rounded_gaussian(Fraction(50), (100,))
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, rounded_gaussian(Fraction(50), (100,)))
