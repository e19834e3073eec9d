# SPDX-License-Identifier: Apache-2.0
"""What every aggregation rule must keep, whatever it weighs silos by."""

import numpy as np
import pytest

from fedcpsc.aggregation.rule import RULES

S, N, K = 4, 30, 5
NAMES = RULES.choices.built_in()


class Answers:
    """Answers so far, all in one piece."""

    shape = (S, K)

    def __init__(self, answers, given):
        self.answers, self.given = answers, given

    def pieces(self):
        yield self.answers, self.given

    def sample(self):
        return self.answers, self.given


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    given = rng.random((S, N)) < 0.7
    given[0] = True
    answers = np.where(given[:, :, None], rng.dirichlet(np.ones(K), (S, N)), 0).astype(np.float32)
    return answers, given, rng.integers(0, 9, (S, K)).astype(np.float32)


def counts_for(rule, answers, given, reported):
    return rule.learn(Answers(answers, given)) if rule.learns_from_answers else reported


def targets(rule, answers, given, reported):
    counts = counts_for(rule, answers, given, reported)
    pooled = rule.pool(answers, given[:, :, None].astype(np.float32), counts, 1e-4)
    return pooled / pooled.sum(1, keepdims=True)


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_finite_and_not_negative(name, case):
    pooled = targets(RULES.get(name), *case)
    assert pooled.shape == (N, K)
    assert np.isfinite(pooled).all()
    assert (pooled >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_silos_changes_nothing(name, case):
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        targets(RULES.get(name), *case), targets(RULES.get(name), *(part[order] for part in case)), atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_where_all_agree_the_target_is_what_they_say(name, case):
    answers, _, reported = case
    alike, everyone = np.broadcast_to(answers[:1], answers.shape), np.ones((S, N), bool)
    np.testing.assert_allclose(targets(RULES.get(name), alike, everyone, reported + 1), answers[0], atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_shares_are_those_of_the_silos_that_answered_and_sum_to_one(name, case):
    answers, given, _ = case
    rule = RULES.get(name)
    shares = rule.shares(answers, given[:, :, None].astype(np.float32), counts_for(rule, *case))
    assert shares.shape == (S, N, K)
    assert (shares[~given] == 0).all()
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_may_not_tell_the_label_mix_gives_silos_the_same_shares_whatever_they_hold(name, case):
    answers, given, reported = case
    rule = RULES.get(name)
    present = given[:, :, None].astype(np.float32)
    other = np.where(given[:, :, None], np.roll(answers, 1, axis=1) ** 3 + 1e-3, 0)
    other = (other / other.sum(2, keepdims=True).clip(1e-9)).astype(np.float32)
    one = rule.shares(answers, present, counts_for(rule, *case))
    two = rule.shares(other, present, counts_for(rule, other, given, reported[::-1]))
    assert np.allclose(one, two) == (not rule.may_tell_label_mix)


@pytest.mark.parametrize("name", [name for name in NAMES if RULES.get(name).learns_from_answers])
def test_what_is_learnt_is_a_number_for_each_silo_and_class(name, case):
    answers, given, _ = case
    given = given.copy()
    given[1] = False
    learnt = RULES.get(name).learn(Answers(answers * given[:, :, None], given))
    assert learnt.shape == (S, K)
    assert (learnt >= 0).all()
    assert (learnt[1] == 0).all(), "nothing is known of a silent silo"
