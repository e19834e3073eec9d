# SPDX-License-Identifier: Apache-2.0
"""Attacks against closed forms for Gaussians, against slow oracles, and against inputs that cannot be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import binomtest, norm

from fedcpsc.audit.attacks.label_only import label_only_scores
from fedcpsc.audit.attacks.lira_offline import lira_offline
from fedcpsc.audit.attacks.lira_online import lira_online
from fedcpsc.audit.attacks.loss import loss_scores
from fedcpsc.audit.attacks.rmia import rmia
from fedcpsc.audit.attacks.statistics import confidence_logit
from fedcpsc.audit.roc import guesses_from, roc
from fedcpsc.errors import AuditError

QUANTILES = norm.ppf((np.arange(4000) + 0.5) / 4000)


# One probability at a time --------------------------------------------------------------------------------------------


def test_the_logit_and_the_loss_are_what_their_formulas_say():
    table = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]])
    assert confidence_logit(table, [0, 2]) == pytest.approx([math.log(0.7 / 0.3), math.log(0.05 / 0.95)])
    assert loss_scores(table, [0, 2]) == pytest.approx([math.log(0.7), math.log(0.05)])


def test_the_logit_keeps_precision_where_one_minus_p_has_none():
    rest = 1e-20
    table = np.array([[1.0, rest, rest, rest]])  # 1 - rest is 1 in float64
    assert confidence_logit(table, [0]) == pytest.approx([-math.log(3 * rest)])
    assert confidence_logit(table, [2]) == pytest.approx([math.log(rest)])


def test_probabilities_of_0_and_1_stay_finite_and_in_order():
    table = np.array([[1, 0], [1 - 1e-6, 1e-6], [0.5, 0.5], [0, 1]], np.float32)
    labels = np.zeros(4, np.int64)
    for scores in (confidence_logit(table, labels), loss_scores(table, labels)):
        assert np.isfinite(scores).all()
        assert (np.diff(scores) < 0).all()


def test_many_models_are_scored_at_once():
    table = np.random.default_rng(0).dirichlet(np.ones(4), (3, 5))
    labels = np.arange(15).reshape(3, 5) % 4
    one_by_one = [[confidence_logit(table[m, i], labels[m, i]).item() for i in range(5)] for m in range(3)]
    assert confidence_logit(table, labels) == pytest.approx(np.array(one_by_one))


def test_the_share_of_views_that_keep_the_label():
    seen = np.array([[0, 1, 2], [0, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert label_only_scores(seen, [0, 1, 2]).tolist() == [1.0, 0.75, 0.25]


# Against closed forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [0.0, 0.5, 1.0, 2.5])
def test_two_gaussians_have_the_area_and_the_curve_of_the_book(d):
    curve = roc(np.concatenate([QUANTILES + d, QUANTILES]), np.arange(8000) < 4000)
    assert curve.auc == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=1e-3)
    for fpr in (0.01, 0.1, 0.5):
        assert curve.tpr_at(fpr) == pytest.approx(norm.cdf(norm.ppf(fpr) + d), abs=0.01)


def shadows_of(count: int, images: int, seed: int = 0):
    """phi of shadows whose images differ in difficulty: N(a_i, 1.5) where trained with them, N(b_i, 0.8) where not."""
    rng = np.random.default_rng(seed)
    without = rng.normal(0, 3, images)
    with_ = without + rng.uniform(0.5, 2.0, images)
    member = rng.random((count, images)) < 0.5
    phi = np.where(member, rng.normal(with_, 1.5, (count, images)), rng.normal(without, 0.8, (count, images)))
    return phi, member, with_, without


@pytest.mark.parametrize("fixed", [True, False])
def test_lira_is_the_likelihood_ratio_where_shadows_abound(fixed):
    phi, member, with_, without = shadows_of(20_000, 30)
    target = without + np.linspace(-1.5, 3, 30)
    exact = norm.logpdf(target, with_, 1.5) - norm.logpdf(target, without, 0.8)
    assert lira_online(target, phi, member, fixed_variance=fixed) == pytest.approx(exact, rel=0.05, abs=0.1)
    p_value = norm.cdf(lira_offline(target, phi, member, fixed_variance=fixed))
    assert p_value == pytest.approx(norm.cdf(target, without, 0.8), abs=0.03)


def test_lira_comes_near_the_best_attack_there_is_and_a_common_threshold_does_not():
    phi, member, with_, without = shadows_of(65, 8000, seed=1)
    target, inside = phi[0], member[0]
    best = roc(norm.logpdf(target, with_, 1.5) - norm.logpdf(target, without, 0.8), inside).auc
    assert roc(lira_online(target, phi[1:], member[1:]), inside).auc == pytest.approx(best, abs=0.01)
    assert roc(target, inside).auc < best - 0.1


def test_attacks_on_models_without_memory_are_coin_tosses():
    """Each AUC is 1/2 +- 0.0082 (one standard deviation): a false alarm has probability 1e-6."""
    rng = np.random.default_rng()
    phi = rng.normal(rng.normal(0, 3, 5000), 1, (17, 5000))
    halves = rng.permuted(np.tile(np.arange(16) < 8, (5000, 1)), axis=1).T  # each image in just half of the shadows
    member = np.vstack([rng.random(5000) < 0.5, halves])
    p, z = 1 / (1 + np.exp(-phi)), rng.uniform(0.01, 1, (17, 300))
    scores = [
        lira_online(phi[0], phi[1:], member[1:]),
        lira_offline(phi[0], phi[1:], member[1:]),
        rmia(p[0], p[1:], member[1:], z[0], z[1:]),
        rmia(p[0], p[1:], member[1:], z[0], z[1:], offline_a=0.3),
    ]
    for score in scores:
        assert roc(score, member[0]).auc == pytest.approx(0.5, abs=4.9 * 0.0082)


# Against slow oracles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [True, False])
def test_lira_is_what_plain_loops_compute(fixed):
    phi, member, *_ = shadows_of(12, 7, seed=3)
    target = np.linspace(-2, 2, 7)
    groups = {kind: [phi[member[:, i] == kind, i] for i in range(7)] for kind in (True, False)}

    def std(kind, i):
        if not fixed:
            return groups[kind][i].std(ddof=1)
        squares = sum(((group - group.mean()) ** 2).sum() for group in groups[kind])
        return math.sqrt(squares / sum(len(group) - 1 for group in groups[kind]))

    online = [
        norm.logpdf(target[i], groups[True][i].mean(), std(True, i))
        - norm.logpdf(target[i], groups[False][i].mean(), std(False, i))
        for i in range(7)
    ]
    offline = [(target[i] - groups[False][i].mean()) / std(False, i) for i in range(7)]
    assert lira_online(target, phi, member, fixed_variance=fixed) == pytest.approx(online)
    assert lira_offline(target, phi, member, fixed_variance=fixed) == pytest.approx(offline)


@pytest.mark.parametrize("a", [None, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_rmia_is_what_plain_loops_compute(a, gamma):
    rng = np.random.default_rng(4)
    own, table = rng.uniform(size=6), rng.uniform(size=(8, 6))
    member = (np.arange(8)[:, None] + np.arange(6)) % 3 > 0
    their, theirs = rng.uniform(size=40), rng.uniform(size=(8, 40))
    expected = []
    for x in range(6):
        out, within = table[~member[:, x], x].mean(), table[member[:, x], x].mean()
        p_x = (out + within) / 2 if a is None else 0.5 * ((1 + a) * out + (1 - a))
        wins = 0
        for z in range(40):
            mean = theirs[:, z].mean()
            p_z = mean if a is None else 0.5 * ((1 + a) * mean + (1 - a))
            wins += (own[x] / p_x) / (their[z] / p_z) >= gamma
        expected.append(wins / 40)
    found = rmia(own, table, member, their, theirs, gamma=gamma, offline_a=a)
    assert found == pytest.approx(expected)
    assert len(set(expected)) > 2


def test_an_image_just_gamma_times_likelier_counts():
    assert rmia(P[0], P, MEMBER, Z[0], Z).tolist() == [1.0, 1.0, 1.0]
    assert rmia(P[0], P, MEMBER, Z[0], Z, gamma=1.01).tolist() == [0.0, 0.0, 0.0]


SCORES = arrays.arrays(np.float64, st.integers(2, 40), elements=st.integers(-3, 3).map(float))


@given(SCORES, st.data())
def test_the_curve_is_what_counting_pairs_gives(scores, data):
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    if members.all() or not members.any():
        with pytest.raises(AuditError, match="both kinds are needed"):
            roc(scores, members)
        return
    curve = roc(scores, members)
    inside, outside = scores[members], scores[~members]
    wins = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    assert curve.auc == pytest.approx(wins)
    assert (curve.members, curve.non_members) == (len(inside), len(outside))
    fpr = data.draw(st.integers(1, len(outside))) / len(outside)
    thresholds = [*scores, np.inf]
    best = max((inside >= t).mean() for t in thresholds if (outside >= t).mean() <= fpr + 1e-9)
    assert curve.tpr_at(fpr) == pytest.approx(best)


@given(SCORES, st.data())
def test_guesses_without_ties_are_counted_and_do_not_depend_on_the_order(scores, data):
    scores = scores + np.arange(len(scores)) / 1000  # all different
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    positive = data.draw(st.integers(0, len(scores)))
    negative = data.draw(st.integers(0 if positive else 1, len(scores) - positive))
    ranked = sorted(zip(scores, members, strict=True), reverse=True)
    right = sum(m for _, m in ranked[:positive]) + sum(not m for _, m in ranked[len(ranked) - negative :])
    assert guesses_from(scores, members, positive, negative) == (positive + negative, right)
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    assert guesses_from(scores[order], members[order], positive, negative) == (positive + negative, right)


def test_equal_scores_of_a_list_sorted_by_membership_give_nothing_away():
    """A stable sort would guess all of these rightly. The chance of a false alarm is 0: the order is fixed."""
    for members in (np.arange(2000) < 1000, np.arange(2000) >= 1000, np.arange(2000) % 2 == 0):
        guesses, right = guesses_from(np.zeros(2000), members, 300, 300)
        assert binomtest(right, guesses).pvalue > 0.01


# Inputs that cannot be ------------------------------------------------------------------------------------------------


def test_a_rate_that_too_few_non_members_can_show_is_refused_with_the_number_needed():
    curve = roc(np.arange(1200.0), np.arange(1200) >= 999)
    assert curve.tpr_at(0.01) == 1.0
    with pytest.raises(AuditError, match="non_members=999: a false positive rate of 0.001 needs at least 1000"):
        curve.tpr_at(0.001)
    assert roc(np.arange(1200.0), np.arange(1200) >= 1000).tpr_at(0.001) == 1.0
    for rate in (0.0, 1.5):
        with pytest.raises(AuditError, match="fpr="):
            curve.tpr_at(rate)


PHI, MEMBER = np.zeros((6, 3)), np.arange(18).reshape(6, 3) % 2 == 0
P, Z = np.full((6, 3), 0.5), np.full((6, 4), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confidence_logit(P, [0, 1]), "labels="),
        (lambda: loss_scores(P, [0, 1, 2, 3, 0, 0]), "must be in \\[0, 3\\)"),
        (lambda: lira_online(PHI[0], PHI, MEMBER[:5]), "target, shadows, member="),
        (lambda: lira_online(PHI[0] + np.nan, PHI, MEMBER), "must be finite"),
        (lambda: lira_online(PHI[0], PHI, np.ones_like(MEMBER)), "only 0 shadows of a kind of which 1"),
        (lambda: lira_online(PHI[0], PHI[:2], MEMBER[:2]), "too few for a variance"),
        (
            lambda: lira_offline(PHI[0], PHI[:3], MEMBER[:3], fixed_variance=False),
            "only 1 shadows of a kind",
        ),
        (lambda: rmia(P[0], P, MEMBER, Z[0], Z[:5]), "population_shadows="),
        (lambda: rmia(P[0], P, MEMBER, Z[0], Z, gamma=0.0), "gamma, offline_a, population="),
        (lambda: rmia(P[0], P, MEMBER, Z[0], Z, offline_a=1.1), "gamma, offline_a, population="),
        (lambda: rmia(P[0], P, MEMBER, Z[0, :0], Z[:, :0]), "gamma, offline_a, population="),
        (lambda: label_only_scores(np.zeros((0, 3)), [0, 1, 2]), "labels_seen="),
        (lambda: roc([0.0, np.nan], [True, False]), "must be finite"),
        (lambda: roc([0.0, 1.0], [True]), "scores, members="),
        (lambda: guesses_from([0.0, 1.0], [True, False], 2, 1), "positive, negative="),
        (lambda: guesses_from([0.0, 1.0], [True, False], 0, 0), "positive, negative="),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(AuditError, match=message):
        call()
