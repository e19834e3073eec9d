# SPDX-License-Identifier: Apache-2.0
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.errors import TeacherError
from fedcpsc.privacy.mechanisms import DpSgdTeacher, Hardening, Mechanism, Plain
from fedcpsc.privacy.votes import ConfidentGnMax, GnMax, NoiseOnly, ShardVotes, quantised


def distributions(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    draws = np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.3), shape[:-1])
    return draws.astype(np.float32)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 1000))
def test_votes_are_whole_and_sum_to_the_levels_and_stay_close(seed: int, classes: int, levels: int) -> None:
    probabilities = distributions(seed, 7, classes)
    votes = quantised(probabilities, levels)
    assert (votes >= 0).all()
    assert (votes.sum(1) == levels).all()
    assert np.abs(votes / levels - probabilities).max() <= 1 / levels + 1e-6


@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(2, 30))
def test_one_teacher_moves_the_sum_by_at_most_the_stated_sensitivity(seed: int, levels: int, outputs: int) -> None:
    """However many outputs there are: "none of these" is one more."""
    before, after = quantised(distributions(seed, 2, 50, outputs), levels)
    assert np.linalg.norm(before - after, axis=1).max() <= math.sqrt(2) * levels
    apart = quantised(np.eye(outputs, dtype=np.float32)[:2], levels)
    assert np.linalg.norm(apart[0] - apart[1]) == pytest.approx(math.sqrt(2) * levels)


@pytest.mark.parametrize("row", [[np.nan, 0.5, 0.5], [np.inf, 0, 0], [-0.5, 1.0, 0.5], [0.9, 0.9, 0.9], [0, 0, 0]])
def test_a_row_that_is_no_distribution_abstains(row: list[float]) -> None:
    assert quantised(np.array([row], np.float32), 10).tolist() == [[0, 0, 0]]


def test_one_level_is_the_hard_vote_with_ties_to_the_lower_class() -> None:
    assert quantised(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32), 1).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_noisy_means_are_unbiased_with_the_stated_noise() -> None:
    outputs = np.repeat(distributions(0, 5, 1, 3), 40_000, axis=1)
    mechanism = ShardVotes(teachers=5, mean_sigma=Fraction(1, 5), levels=64)
    released = mechanism.release(outputs)
    assert released.dtype == np.float32
    error = released - outputs.mean(0)
    assert np.abs(error.mean(0)).max() < 5 * 0.2 / math.sqrt(40_000) + 1 / 64
    np.testing.assert_allclose(error.std(0), mechanism.noise_sigma, rtol=0.03)
    assert mechanism.cost() == Fraction(2)
    assert mechanism.cost() == pytest.approx((mechanism.sensitivity / mechanism.sigma) ** 2)


def test_noise_only_is_one_teacher_with_the_diameter_as_sensitivity() -> None:
    mechanism = NoiseOnly(mean_sigma=Fraction(10))
    assert mechanism.cost() == Fraction(2, 100)
    assert not mechanism.shards
    assert mechanism.release(distributions(1, 1, 6, 4)).shape == (6, 4)


def test_gnmax_names_the_winner_when_teachers_agree() -> None:
    outputs = np.tile(np.array([0.1, 0.8, 0.1], np.float32), (200, 50, 1))
    mechanism = GnMax(teachers=200, vote_sigma=Fraction(10))
    assert (mechanism.release(outputs).argmax(1) == 1).all()  # 200 votes apart: 14 sigma
    assert mechanism.cost() == Fraction(2, 100)


def test_confident_gnmax_abstains_below_the_threshold_and_pays_for_both_tests() -> None:
    agreed = np.tile(np.array([0.1, 0.8, 0.1], np.float32), (200, 50, 1))
    split = agreed.copy()
    split[:100] = [0.8, 0.1, 0.1]
    mechanism = ConfidentGnMax(teachers=200, vote_sigma=Fraction(4), threshold=150, threshold_sigma=Fraction(4))
    assert (mechanism.release(agreed).argmax(1) == 1).all()
    assert not mechanism.release(split).any()  # 50 votes below: 12 sigma
    assert mechanism.cost() == Fraction(2, 16) + Fraction(1, 16)


def test_a_mechanism_refuses_another_number_of_teachers_than_it_was_proven_for() -> None:
    for mechanism in (ShardVotes(3, Fraction(1)), GnMax(3, Fraction(1)), NoiseOnly(mean_sigma=Fraction(1))):
        with pytest.raises(TeacherError, match="proven for"):
            mechanism.release(distributions(0, 2, 4, 3))


def test_hardening_flattens_and_rounds_but_keeps_the_order() -> None:
    outputs = distributions(3, 1, 20, 5)
    released = Hardening(temperature=4.0, decimals=2).release(outputs)
    assert (released.max(1) <= outputs[0].max(1) + 0.005).all()
    np.testing.assert_allclose(released * 100, np.rint(released * 100), atol=1e-4)
    np.testing.assert_allclose(Hardening().release(outputs), outputs[0], atol=1e-6)


@pytest.mark.parametrize("mechanism", [Plain(), Hardening(), DpSgdTeacher()])
def test_what_adds_no_noise_costs_nothing_and_only_a_dp_training_claims_anything(mechanism: Mechanism) -> None:
    assert mechanism.cost() == 0
    assert mechanism.dp == isinstance(mechanism, DpSgdTeacher)


def test_a_description_tells_every_parameter() -> None:
    assert ShardVotes(3, Fraction(1, 10)).describe() != ShardVotes(3, Fraction(1, 5)).describe()
    assert ShardVotes(3, Fraction(1, 10)).describe() == ShardVotes(3, Fraction(1, 10)).describe()
    assert Hardening(decimals=2).describe() != Hardening(decimals=3).describe()
