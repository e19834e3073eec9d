# SPDX-License-Identifier: Apache-2.0
import importlib.util
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.errors import PolicyError
from fedcpsc.privacy.accounting import (
    Epsilon,
    compose,
    dp_sgd_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    max_answers,
    pld_epsilon,
    rdp_epsilon,
)

DELTA = 1e-5

# Independent reference values, exact to the digits shown.
EPSILON_OF_MU = {
    0.01: 0.0272194198145777,
    0.1: 0.34066936468436093,
    0.5: 1.9930914044151153,
    1: 4.377178095681232,
    2: 9.997256146434305,
    5: 33.103732335922494,
    20: 284.3918494977892,
}
MU_OF_EPSILON = {
    0.5: 0.14221055866926138,
    1: 0.26805112321129043,
    2: 0.5015516891695647,
    4: 0.9249308976666882,
    8: 1.6660305978457017,
    10: 2.000445620430778,
    20: 3.447783446869383,
}
MAX_ANSWERS = {  # K, sigma on the mean -> answers with epsilon <= 8
    (50, "0.05"): 8, (50, "0.1"): 34, (50, "0.2"): 138, (50, "0.5"): 867,
    (100, "0.05"): 34, (100, "0.1"): 138, (100, "0.2"): 555, (100, "0.5"): 3469,
    (250, "0.05"): 216, (250, "0.1"): 867, (250, "0.2"): 3469, (250, "0.5"): 21684,
    (1000, "0.05"): 3469, (1000, "0.1"): 13878, (1000, "0.2"): 55513, (1000, "0.5"): 346957,
}  # fmt: skip
SINGLE = {  # sigma, answers -> epsilon, one teacher
    (1, 10**3): 1189.7766984122504,
    (1, 10**6): 1006030.4679078808,
    (10, 10**4): 159.44148628736403,
    (100, 10**3): 1.7600571495138797,
    (1000, 10**3): 0.14168536707789675,
}
ENSEMBLE = {  # K, sigma on the mean, answers -> epsilon
    (10, 0.05, 10**6): 4012061.93355884,
    (50, 0.1, 100): 15.456155822609329,
    (250, 0.1, 1000): 8.720755256309866,
    (1000, 0.2, 100): 0.23354590722707622,
}
CONFIDENT = {100: 1.382905074299916, 286: 2.483705091283723, 1000: 5.086021791100992, 10000: 21.159902324960868}


@pytest.mark.parametrize(("mu", "epsilon"), EPSILON_OF_MU.items())
def test_epsilon_of_mu(mu: float, epsilon: float) -> None:
    assert gaussian_epsilon(mu, DELTA) == pytest.approx(epsilon, rel=1e-11)


@pytest.mark.parametrize(("epsilon", "mu"), MU_OF_EPSILON.items())
def test_mu_of_epsilon(epsilon: float, mu: float) -> None:
    assert gaussian_mu(epsilon, DELTA) == pytest.approx(mu, rel=1e-11)


@pytest.mark.parametrize(("case", "answers"), MAX_ANSWERS.items())
def test_the_filter_ends_exactly(case: tuple[int, str], answers: int) -> None:
    teachers, sigma = case
    assert max_answers(2 / (teachers * Fraction(sigma)) ** 2, 8.0, DELTA) == answers


@pytest.mark.parametrize(("case", "epsilon"), SINGLE.items())
def test_a_single_teacher(case: tuple[int, int], epsilon: float) -> None:
    sigma, answers = case
    assert gaussian_epsilon(math.sqrt(2 * answers) / sigma, DELTA) == pytest.approx(epsilon, rel=1e-11)


@pytest.mark.parametrize(("case", "epsilon"), ENSEMBLE.items())
def test_an_ensemble(case: tuple[int, float, int], epsilon: float) -> None:
    teachers, sigma, answers = case
    assert gaussian_epsilon(math.sqrt(2 * answers) / (teachers * sigma), DELTA) == pytest.approx(epsilon, rel=1e-11)


@pytest.mark.parametrize(("answers", "epsilon"), CONFIDENT.items())
def test_threshold_and_votes_compose(answers: int, epsilon: float) -> None:
    mu2 = answers * (1 / 150**2 + 2 / 40**2)
    assert compose(mu2, DELTA, []) == pytest.approx(epsilon, rel=1e-11)


@pytest.mark.parametrize(("mu", "epsilon"), [(1, 4.728507067217623), (5, 35.0818)])
def test_the_second_opinion_is_opacus(mu: float, epsilon: float) -> None:
    assert rdp_epsilon(mu**2, DELTA) == pytest.approx(epsilon, rel=2e-6)


@given(st.floats(1e-3, 1e3), st.floats(1e-12, 0.1))
def test_epsilon_is_the_least_that_delta_allows(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 1e-6:
        assert gaussian_delta(mu, epsilon * (1 - 1e-6)) > delta


@given(st.floats(1e-2, 1e5), st.floats(1e-12, 0.1))
def test_mu_is_rounded_down_and_inverts_epsilon(epsilon: float, delta: float) -> None:
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-6)


@given(st.floats(0.05, 100), st.floats(1e-10, 1e-3))
def test_the_second_opinion_is_never_below_the_exact_one(mu: float, delta: float) -> None:
    exact, second = gaussian_epsilon(mu, delta), rdp_epsilon(mu**2, delta)
    assert exact <= second * (1 + 1e-9)
    assert second <= exact * 1.35 + 0.2


@pytest.mark.parametrize(
    ("noise", "records", "batch", "epochs", "epsilon"),
    [
        (1.0, 6000, 256, 20, 6.11),
        (2.0, 6000, 256, 20, 2.06),
        (1.0, 60000, 1024, 30, 4.39),
        (2.0, 60000, 1024, 30, 1.52),
    ],
)
def test_epsilon_of_a_training(noise: float, records: int, batch: int, epochs: int, epsilon: float) -> None:
    history = [(noise, batch / records, epochs * records // batch)]
    assert dp_sgd_epsilon(history, DELTA) == pytest.approx(epsilon, rel=0.01)
    assert dp_sgd_epsilon(history, DELTA) < rdp_epsilon(0.0, DELTA, [history])


def test_trainings_and_answers_compose_above_each_alone() -> None:
    training = [(1.0, 256 / 6000, 20 * 6000 // 256)]
    both = compose(0.25, DELTA, [training])
    assert both > compose(0.0, DELTA, [training]) > 5.0
    assert both > gaussian_epsilon(0.5, DELTA)
    assert compose(0.0, DELTA, [training, training]) > compose(0.0, DELTA, [training])
    with pytest.raises(PolicyError, match="sample_rate"):
        compose(0.0, DELTA, [[(1.0, 1.5, 10)]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: gaussian_mu(0.0, DELTA),
        lambda: gaussian_mu(-1.0, DELTA),
        lambda: gaussian_mu(math.nan, DELTA),
        lambda: gaussian_epsilon(1.0, 0.0),
        lambda: gaussian_epsilon(1.0, 1.0),
        lambda: gaussian_epsilon(math.inf, DELTA),
        lambda: max_answers(Fraction(0), 8.0, DELTA),
    ],
)
def test_values_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(PolicyError):
        call()  # type: ignore[operator]


def test_an_epsilon_is_shown_with_all_that_belongs_to_it() -> None:
    assert str(Epsilon(4.3772, 1e-5, "record", "add_remove")) == "epsilon 4.377 (delta 1e-05, per record, add_remove)"


@pytest.mark.skipif(importlib.util.find_spec("dp_accounting") is None, reason="the extra dp-accounting")
def test_the_third_opinion_agrees() -> None:
    assert pld_epsilon(1.0, DELTA) == pytest.approx(EPSILON_OF_MU[1], rel=1e-3)
