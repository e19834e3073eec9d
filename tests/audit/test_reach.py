# SPDX-License-Identifier: Apache-2.0
"""What guesses could show at most, and how many a claim needs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from fedcpsc.audit.bounds import one_run_chance, one_run_epsilon, two_world_epsilon
from fedcpsc.audit.reach import (
    guesses_needed,
    least_right,
    planned_guesses,
    reachable_epsilon,
    reachable_mu,
    reachable_worlds,
)
from fedcpsc.errors import AuditError

DELTA = 1e-5


@pytest.mark.parametrize(
    ("canaries", "guesses", "confidence", "epsilon"),
    [
        (500, 50, 0.95, 2.7705),
        (500, 50, 1 - 0.05 / 5, 2.3051),  # five silos' teachers, or students
        (500, 50, 1 - 0.05 / 10, 2.1376),  # five silos' teachers and students: the default
        (200, 80, 0.95, 3.2605),
        (960, 192, 0.95, 4.1264),
        (20_000, 20_000, 0.95, 8.1967),
    ],
)
def test_so_many_guesses_reach_so_far(canaries, guesses, confidence, epsilon):
    assert reachable_epsilon(canaries, guesses, DELTA, confidence) == pytest.approx(epsilon, abs=5e-5)


def test_without_delta_the_reach_has_a_closed_form():
    """All right with probability q ** guesses: q = level ** (1 / guesses)."""
    for guesses in (5, 50, 1000):
        q = 0.05 ** (1 / guesses)
        assert reachable_epsilon(guesses, guesses, 0.0) == pytest.approx(math.log(q / (1 - q)), rel=1e-7)


@given(st.integers(1, 200), st.floats(0.6, 0.999), st.data())
def test_no_guesses_show_more_than_all_right(canaries, confidence, data):
    guesses = data.draw(st.integers(0, canaries))
    correct = data.draw(st.integers(0, guesses))
    found = one_run_epsilon(canaries, guesses, correct, DELTA, confidence)
    assert found <= reachable_epsilon(canaries, guesses, DELTA, confidence) + 1e-8


def test_nothing_guessed_reaches_nothing():
    assert reachable_epsilon(0, 0, DELTA) == reachable_epsilon(10, 0, DELTA) == reachable_mu(10, 0) == 0.0


def test_worlds_reach_what_no_error_shows():
    assert reachable_worlds(1000, 1000, 0.0) == two_world_epsilon(0, 1000, 0, 1000, 0.0) > 5.6


@pytest.mark.parametrize(
    ("epsilon", "confidence", "share", "needed"),
    [
        (1.0, 0.95, 1.0, 10),
        (1.0, 0.995, 0.1, 18),
        (4.0, 0.95, 0.1, 173),
        (8.0, 0.95, 1.0, 12_977),
        (8.0, 0.95, 0.1, None),  # ten times the canaries, and delta concedes too much to them
        (8.0, 0.99, 1.0, None),  # five claims: out of reach of any number of guesses
        (20.0, 0.95, 1.0, None),
    ],
)
def test_a_claim_needs_so_many_guesses(epsilon, confidence, share, needed):
    found = guesses_needed(epsilon, DELTA, confidence, share)
    assert found == needed
    if found is not None:
        assert reachable_epsilon(math.ceil(found / share), found, DELTA, confidence) > epsilon
        assert reachable_epsilon(math.ceil((found - 1) / share), found - 1, DELTA, confidence) <= epsilon


@pytest.mark.parametrize(("epsilon", "confidence", "share"), [(8.0, 0.99, 1.0), (8.0, 0.95, 0.1), (9.0, 0.95, 1.0)])
def test_where_no_number_is_said_to_do_none_does(epsilon, confidence, share):
    level = 1 - confidence
    least = math.log(level) / math.log(expit(epsilon))
    for factor in [1 + 0.05 * step for step in range(60)] + [10, 100]:
        guesses = math.ceil(least * factor)
        assert one_run_chance(math.ceil(guesses / share), guesses, guesses, epsilon, DELTA) >= level


def test_without_delta_every_claim_needs_some_number():
    assert guesses_needed(8.0, 0.0) == math.ceil(math.log(0.05) / math.log(expit(8.0))) == 8932


def test_the_least_right_guesses_are_where_the_bound_passes_the_claim():
    least = least_right(500, 50, 1.0, DELTA)
    assert least == 43
    assert one_run_epsilon(500, 50, 43, DELTA) > 1.0 >= one_run_epsilon(500, 50, 42, DELTA)
    assert least_right(500, 50, 3.0, DELTA) is None


@given(st.integers(0, 3000), st.floats(0.001, 1.0))
def test_guesses_are_planned_by_the_number_of_canaries_alone(canaries, share):
    positive, negative = planned_guesses(canaries, share)
    assert positive == negative
    assert positive + negative <= canaries
    assert (positive > 0) == (canaries >= 2)
    if canaries >= 20:
        assert abs(positive + negative - max(2, share * canaries)) <= 2


@pytest.mark.parametrize(
    ("epsilon", "confidence", "share"), [(-1, 0.95, 1), (math.inf, 0.95, 1), (1, 1.0, 1), (1, 0.95, 0), (1, 0.95, 1.1)]
)
def test_numbers_that_cannot_be_are_refused(epsilon, confidence, share):
    with pytest.raises(AuditError, match="epsilon, confidence, share="):
        guesses_needed(epsilon, DELTA, confidence, share)
