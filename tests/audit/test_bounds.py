# SPDX-License-Identifier: Apache-2.0
"""The lower bounds: pinned figures, slow oracles, monotonicity, and mechanisms whose privacy is known."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom, norm

from fedcpsc.audit.bounds import one_run_epsilon, one_run_mu, two_world_epsilon, two_world_mu
from fedcpsc.audit.roc import guesses_from
from fedcpsc.errors import AuditError
from fedcpsc.privacy.accounting import gaussian_delta, gaussian_epsilon, gaussian_mu

FIVE_DIGITS = 1e-5


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "epsilon"),
    [
        (1000, 1000, 700, 0.0, 0.7320108623595574),
        (1000, 1000, 700, 1e-5, 0.731740449420531),
        (1000, 100, 95, 1e-5, 2.1651757994835124),
        (1000, 100, 100, 1e-5, 3.4653763478110657),
        (5000, 500, 450, 1e-5, 1.941420432147148),
        (100, 100, 100, 0.0, 3.492965431152307),
    ],
)
def test_one_run_epsilon_equals_the_pins(canaries, guesses, correct, delta, epsilon):
    assert one_run_epsilon(canaries, guesses, correct, delta) == pytest.approx(epsilon, rel=FIVE_DIGITS)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "epsilon"),
    [
        (1000, 1000, 700, 1.3719793913011824),
        (1000, 100, 95, 3.323300489140597),
        (1000, 100, 100, 5.549027897691234),
        (5000, 500, 450, 2.776066252341642),
    ],
)
def test_one_run_mu_equals_the_pins_as_epsilon(canaries, guesses, correct, epsilon):
    found = gaussian_epsilon(one_run_mu(canaries, guesses, correct), 1e-5)
    assert found == pytest.approx(epsilon, rel=FIVE_DIGITS)


def test_two_worlds_equal_the_pins():
    assert two_world_epsilon(0, 1000, 0, 1000, 0.0) == pytest.approx(5.600587531298923, rel=FIVE_DIGITS)
    assert two_world_epsilon(50, 1000, 500, 1000, 1e-5) == pytest.approx(1.9692429086156429, rel=FIVE_DIGITS)
    mu = two_world_mu(50, 1000, 500, 1000)
    assert mu == pytest.approx(1.4321119683479315, rel=FIVE_DIGITS)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(6.672130922942756, rel=FIVE_DIGITS)


@pytest.mark.parametrize(
    ("shift", "hull", "guesses", "epsilon"),
    [(1, 386, 3376, 1.13346), (2, 374, 4666, 2.311945), (4, 140, 8233, 4.395568)],
)
def test_epsilons_that_jax_privacy_tests_itself_with(shift, hull, guesses, epsilon):
    confidence, right = top_guesses(shift, hull, guesses)
    assert one_run_epsilon(2 * EACH, guesses, right, 1e-6, confidence) == pytest.approx(epsilon, rel=FIVE_DIGITS)


@pytest.mark.parametrize(
    ("shift", "hull", "guesses", "epsilon"),
    [(1, 386, 406, 2.164749), (2, 374, 938, 4.7218075), (4, 140, 5436, 9.133752)],
)
def test_sharpened_epsilons_that_jax_privacy_tests_itself_with(shift, hull, guesses, epsilon):
    confidence, right = top_guesses(shift, hull, guesses)
    found = gaussian_epsilon(one_run_mu(2 * EACH, guesses, right, confidence), 1e-6)
    assert found == pytest.approx(epsilon, rel=FIVE_DIGITS)


EACH = 10_000


def top_guesses(shift: int, hull: int, guesses: int) -> tuple[float, int]:
    """jax_privacy, tests/auditing_test.py: 10,000 canaries of either kind, scores at the quantiles of N(0, 1) and
    N(shift, 1), delta 1e-6. It tries every threshold on the convex hull of the ROC and divides 5 % of error among these
    `hull` thresholds; the winning one takes so many guesses."""
    quantiles = norm.ppf((np.arange(EACH) + 0.5) / EACH)
    order = np.argsort(-np.concatenate([quantiles, quantiles + shift]), kind="stable")
    return 1 - 0.05 / hull, int((order[:guesses] >= EACH).sum())


# Slow oracles ---------------------------------------------------------------------------------------------------------


def chance_by_enumeration(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Steinke et al.'s bound on P[correct >= v], summed term by term."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    worst = max((sum(mass[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return sum(mass[v:]) + 2 * m * delta * worst


@pytest.mark.parametrize("case", [(60, 60, 45, 0.0), (60, 60, 45, 1e-4), (80, 20, 20, 1e-3), (50, 30, 24, 1e-5)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_one_run_epsilon_is_where_the_enumerated_chance_crosses_the_level(case, confidence):
    m, r, v, delta = case
    found = one_run_epsilon(m, r, v, delta, confidence)
    if found > 0:
        assert chance_by_enumeration(m, r, v, found * (1 - 1e-6), delta) < 1 - confidence
    assert chance_by_enumeration(m, r, v, found * (1 + 1e-6) + 1e-9, delta) >= 1 - confidence


def rejected_by_recursion(m: int, g: int, v: int, mu: float, level: float) -> bool:
    """Mahloujifar et al.'s recursion from its definition: h_i, r_i for i = v, ..., 0, without any short cut."""
    h, r = {v: level * (g - v) / m}, {v: level * v / m}
    for i in range(v - 1, -1, -1):
        h[i] = max(h[i + 1], norm.cdf(norm.ppf(r[i + 1]) - mu))
        r[i] = min(r[i + 1] + i / (g - i) * (h[i] - h[i + 1]), 1.0)
    return bool(r[0] + h[0] > g / m)


@pytest.mark.parametrize("case", [(60, 60, 45), (80, 20, 20), (50, 30, 24), (200, 100, 90)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_one_run_mu_is_where_the_plain_recursion_stops_rejecting(case, confidence):
    found = one_run_mu(*case, confidence)
    assert found > 0
    assert rejected_by_recursion(*case, found * (1 - 1e-6), 1 - confidence)
    assert not rejected_by_recursion(*case, found * (1 + 1e-6), 1 - confidence)


@pytest.mark.parametrize(("hits", "trials"), [(0, 30), (3, 40), (450, 1000)])
def test_error_rates_are_where_so_few_hits_become_unlikely(hits, trials):
    """Equal counts on both sides: mu = -2 Phi^-1(a), where P[Binomial(trials, a) <= hits] is half of what is left."""
    a = norm.cdf(-two_world_mu(hits, trials, hits, trials, 0.9) / 2)
    assert binom.cdf(hits, trials, a) == pytest.approx(0.05)
    assert two_world_epsilon(hits, trials, hits, trials, 0.0, 0.9) == pytest.approx(math.log((1 - a) / a))


# What is known of mechanisms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("canaries", "delta"), [(200, 0.0), (200, 1e-5), (1000, 0.0)])
def test_randomised_response_is_accused_as_often_as_allowed_and_not_far_less(epsilon, canaries, delta):
    """Its guesses are right with probability exactly sigmoid(epsilon), the worst that epsilon allows. The chance of a
    bound above epsilon, in full: at most 5 %, and no less than what the discreteness of a count costs."""
    q, right = expit(epsilon), np.arange(canaries + 1)
    chances = binom.pmf(right, canaries, q)
    accused = [one_run_epsilon(canaries, canaries, int(v), delta) > epsilon if chances[v] > 1e-9 else v > q * canaries
               for v in right]  # fmt: skip
    false_alarm = float(chances[accused].sum())
    assert false_alarm <= 0.05 + 1e-6
    assert false_alarm > (0.01 if delta == 0 else 0.0)
    expected = one_run_epsilon(canaries, canaries, int(q * canaries), delta)
    assert 0.4 * epsilon < expected < epsilon


def test_the_sharpened_bound_accuses_a_gaussian_mechanism_rarely_and_comes_near():
    """1,000 canaries, each with its own N(0, 1) noise, mu = 1; 100 guesses of either side, fixed beforehand. A bound is
    wrong with probability 5 % at most: 300 audits show more than 34 wrong ones with probability below 1e-5."""
    rng, mu, found = np.random.default_rng(), 1.0, []
    for _ in range(300):
        members = rng.random(1000) < 0.5
        scores = rng.normal(size=1000) + mu * members
        found.append(one_run_mu(1000, *guesses_from(scores, members, 100, 100)))
    wrong = int((np.array(found) > mu).sum())
    assert binom.sf(34, 300, 0.05) < 1e-5
    assert wrong <= 34
    assert np.median(found) > 0.5 * mu


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_a_gaussian_mechanism_of_known_epsilon_is_bounded_from_below_within_30_percent(epsilon):
    """The bound is above the truth with probability 1e-6 at most."""
    delta, outputs, rng = 1e-5, 1_000_000, np.random.default_rng()
    mu = gaussian_mu(epsilon, delta)
    counts = errors(rng.normal(size=outputs), rng.normal(mu, size=outputs), mu / 2)
    found = gaussian_epsilon(two_world_mu(*counts, 1 - 1e-6), delta)
    assert 0.7 * epsilon <= found <= epsilon
    assert 0 < two_world_epsilon(*counts, delta, 1 - 1e-6) <= epsilon


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_a_laplace_mechanism_of_known_epsilon_is_bounded_from_below_within_30_percent(epsilon):
    """The bound is above the truth with probability 1e-6 at most."""
    outputs, rng = 1_000_000, np.random.default_rng()
    counts = errors(rng.laplace(0, 1 / epsilon, outputs), rng.laplace(1, 1 / epsilon, outputs), 1.0)
    assert 0.7 * epsilon <= two_world_epsilon(*counts, 0.0, 1 - 1e-6) <= epsilon


@pytest.mark.parametrize("wrong_scale", [2 / 3, 1 / 2, 0.0])
def test_too_little_noise_is_caught(wrong_scale):
    delta, outputs, rng = 1e-5, 100_000, np.random.default_rng()
    mu = gaussian_mu(1.0, delta)
    counts = errors(wrong_scale * rng.normal(size=outputs), mu + wrong_scale * rng.normal(size=outputs), mu / 2)
    assert gaussian_epsilon(two_world_mu(*counts, 1 - 1e-6), delta) > 1.0


def errors(without: np.ndarray, with_: np.ndarray, threshold: float) -> tuple[int, int, int, int]:
    return int((without > threshold).sum()), len(without), int((with_ <= threshold).sum()), len(with_)


def test_an_error_rate_on_the_gaussian_curve_gives_its_mu_back():
    """With so many outputs that confidence costs nothing, any threshold gives mu, and epsilon where delta says so."""
    mu, outputs = 1.3, 10**13
    for threshold in (-0.5, 0.4, 2.0):
        false, missed = round(norm.sf(threshold) * outputs), round(norm.cdf(threshold - mu) * outputs)
        assert two_world_mu(false, outputs, missed, outputs) == pytest.approx(mu, rel=1e-4)
        # Balle & Wang: threshold t = epsilon / mu + mu / 2 is the one that tests (epsilon, delta)
    epsilon = 1.7
    t = epsilon / mu + mu / 2
    false, missed = round(norm.sf(t) * outputs), round(norm.cdf(t - mu) * outputs)
    delta = gaussian_delta(mu, epsilon)
    assert two_world_epsilon(false, outputs, missed, outputs, delta) == pytest.approx(epsilon, rel=1e-4)


# Order ----------------------------------------------------------------------------------------------------------------

CONFIDENCES = st.floats(0.5, 0.9999)
DELTAS = st.sampled_from([0.0, 1e-6, 1e-3])


@st.composite
def guesses_made(draw: st.DrawFn) -> tuple[int, int, int]:
    m = draw(st.integers(1, 300))
    g = draw(st.integers(0, m))
    return m, g, draw(st.integers(0, g))


@given(guesses_made(), DELTAS, CONFIDENCES, CONFIDENCES)
def test_one_run_bounds_rise_with_right_guesses_and_fall_with_confidence_and_delta(case, delta, one, other):
    m, g, v = case
    low, high = sorted((one, other))
    slack = 1e-8
    epsilon, mu = one_run_epsilon(m, g, v, delta, low), one_run_mu(m, g, v, low)
    assert min(epsilon, mu) >= 0
    assert one_run_epsilon(m, g, v, delta, high) <= epsilon + slack
    assert one_run_mu(m, g, v, high) <= mu + slack
    assert one_run_epsilon(m, g, v, min(1e-2, 10 * delta), low) <= epsilon + slack
    if v < g:
        assert one_run_epsilon(m, g, v + 1, delta, low) >= epsilon - slack
        assert one_run_mu(m, g, v + 1, low) >= mu - slack
    if g < m:  # one guess more, and wrong
        assert one_run_epsilon(m, g + 1, v, delta, low) <= epsilon + slack
        assert one_run_mu(m, g + 1, v, low) <= mu + slack


@st.composite
def outputs_tested(draw: st.DrawFn) -> tuple[int, int, int, int]:
    n, p = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    return draw(st.integers(0, n)), n, draw(st.integers(0, p)), p


@given(outputs_tested(), DELTAS, CONFIDENCES, CONFIDENCES)
def test_two_world_bounds_fall_with_errors_confidence_and_delta_and_know_no_sides(case, delta, one, other):
    false, n, missed, p = case
    low, high = sorted((one, other))
    epsilon, mu = two_world_epsilon(*case, delta, low), two_world_mu(*case, low)
    assert min(epsilon, mu) >= 0
    assert two_world_epsilon(missed, p, false, n, delta, low) == pytest.approx(epsilon)
    assert two_world_mu(missed, p, false, n, low) == pytest.approx(mu)
    assert two_world_epsilon(*case, delta, high) <= epsilon + 1e-9
    assert two_world_mu(*case, high) <= mu + 1e-9
    assert two_world_epsilon(*case, delta + 0.01, low) <= epsilon + 1e-9
    if false < n:
        assert two_world_epsilon(false + 1, n, missed, p, delta, low) <= epsilon + 1e-9
        assert two_world_mu(false + 1, n, missed, p, low) <= mu + 1e-9


def test_nothing_guessed_or_nothing_right_proves_nothing():
    assert one_run_epsilon(100, 0, 0, 1e-5) == one_run_mu(100, 0, 0) == 0.0
    assert one_run_epsilon(100, 50, 0, 0.0) == one_run_mu(100, 50, 0) == 0.0
    assert two_world_epsilon(100, 100, 100, 100, 0.0) == two_world_mu(100, 100, 100, 100) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_run_epsilon(10, 11, 5, 0.0), "canaries, guesses, correct="),
        (lambda: one_run_epsilon(10, 5, 6, 0.0), "canaries, guesses, correct="),
        (lambda: one_run_mu(0, 0, 0), "canaries, guesses, correct="),
        (lambda: one_run_mu(10, 5, -1), "canaries, guesses, correct="),
        (lambda: one_run_mu(10, 5, 5, 1.0), "confidence=1.0"),
        (lambda: one_run_epsilon(10, 5, 5, 1.0), "delta=1.0"),
        (lambda: two_world_epsilon(1, 10, 1, 10, -1e-5), "delta=-1e-05"),
        (lambda: two_world_mu(11, 10, 1, 10), "false_positives=11"),
        (lambda: two_world_mu(1, 10, 1, 0), "false_negatives=1"),
        (lambda: two_world_mu(1, 10, 1, 10, 0.0), "confidence=0.0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(call, message):
    with pytest.raises(AuditError, match=message):
        call()


def test_the_bounds_need_no_torch():
    code = "import sys, fedcpsc.audit.bounds; print({'torch', 'flwr', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
