# SPDX-License-Identifier: Apache-2.0
import importlib.util
import math

import pytest

from fedcpsc.errors import PolicyError
from fedcpsc.gatekeeper import composition
from fedcpsc.gatekeeper.composition import Composition, composed_epsilon, largest_mu2
from fedcpsc.privacy.accounting import dp_sgd_epsilon, gaussian_epsilon, gaussian_mu, pld_epsilon, rdp_epsilon

DELTA = 1e-5
TRAINING = [(1.89453125, 0.02, 500)]  # epsilon 0.999


def test_gaussian_releases_alone_are_exact() -> None:
    found = composed_epsilon(1.0, DELTA, [])
    assert found == Composition(pytest.approx(4.377178095681232), None, exact=True)
    assert found.epsilon == found.renyi
    assert composed_epsilon(0.0, DELTA, []).epsilon == 0.0


def test_a_mixture_is_shown_by_both_accountants_and_the_smaller_bound_holds() -> None:
    found = composed_epsilon(0.04, DELTA, [TRAINING])
    assert found.renyi == pytest.approx(1.379, abs=0.001)
    assert found.pld is not None
    assert 1.24 < found.pld < 1.28  # PRV's upper estimate is within 0.01 of the truth
    assert found.epsilon == found.pld
    assert not found.exact
    assert str(found).startswith(f"epsilon {found.pld:.4g} (1.379 by Rényi DP, ")
    for part in (composed_epsilon(0.04, DELTA, []), composed_epsilon(0.0, DELTA, [TRAINING])):
        assert part.epsilon < found.epsilon
    assert found.epsilon > composed_epsilon(0.02, DELTA, [TRAINING]).epsilon


def test_two_trainings_are_one_twice_as_long_in_any_order() -> None:
    other = [(3.0, 0.01, 100)]
    assert composed_epsilon(0.0, DELTA, [TRAINING, other]) == composed_epsilon(0.0, DELTA, [other, TRAINING])
    twice = composed_epsilon(0.0, DELTA, [TRAINING, TRAINING])
    assert twice.renyi == pytest.approx(rdp_epsilon(0.0, DELTA, [[(1.89453125, 0.02, 1000)]]))


@pytest.mark.skipif(importlib.util.find_spec("dp_accounting") is not None, reason="without dp-accounting")
def test_without_dp_accounting_the_numerical_bound_is_opacus_prv() -> None:
    assert composed_epsilon(0.0, DELTA, [TRAINING]).pld == dp_sgd_epsilon(TRAINING, DELTA)


def test_where_losses_are_too_large_for_numerical_accounting_renyi_stands_alone() -> None:
    assert composed_epsilon(100.0, DELTA, [TRAINING]).pld is None
    found = composed_epsilon(0.0, DELTA, [[(0.3, 1.0, 1000)]])
    assert found.pld is None
    assert found.epsilon == found.renyi > 100


def test_with_dp_accounting_the_numerical_bound_is_its_pld() -> None:
    pytest.importorskip("dp_accounting")
    composition._composed.cache_clear()
    alone, mixed = composed_epsilon(0.0, DELTA, [TRAINING]), composed_epsilon(0.04, DELTA, [TRAINING])
    assert alone.pld == pytest.approx(dp_sgd_epsilon(TRAINING, DELTA), abs=0.02)
    assert mixed.pld == pld_epsilon(0.2, DELTA, [TRAINING])
    assert alone.pld is not None
    assert mixed.pld is not None
    assert alone.pld < mixed.pld < mixed.renyi
    assert pld_epsilon(1.0, DELTA) == pytest.approx(4.377178095681232, rel=1e-3)


def test_the_largest_mu2_beside_trainings_stays_within_the_promise_and_close_to_it() -> None:
    assert largest_mu2(2.0, DELTA, []) == int(gaussian_mu(2.0, DELTA) ** 2 * 10**12)
    found = largest_mu2(2.0, DELTA, [TRAINING]) / 10**12
    assert 1.98 < composed_epsilon(found, DELTA, [TRAINING]).epsilon <= 2.0
    assert gaussian_epsilon(math.sqrt(found), DELTA) < 2.0
    assert largest_mu2(0.9, DELTA, [TRAINING]) == 0


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(PolicyError, match="sample_rate"):
        composed_epsilon(0.0, DELTA, [[(1.0, 1.5, 10)]])
