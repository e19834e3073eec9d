# SPDX-License-Identifier: Apache-2.0
"""Aggregation rules against a loop over silos, images and classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.aggregation.rule import RULES
from fedcpsc.distillation import aggregation
from fedcpsc.distillation.aggregation import class_counts
from fedcpsc.distillation.targets import class_entropy
from fedcpsc.errors import FederationError
from fedcpsc.label_sets import LabelSets
from fedcpsc.protocol.messages import ClassReport

NAMES = RULES.choices.built_in()


def aggregate(answers, given, rule, **facts):
    return aggregation.aggregate(answers, given, RULES.get(rule), **facts)


def silo_shares(answers, given, rule, **facts):
    return aggregation.silo_shares(answers, given, RULES.get(rule), **facts)


def sample(seed, s=3, n=5, k=4):
    rng = np.random.default_rng(seed)
    answers = rng.dirichlet(np.ones(k), (s, n)).astype(np.float32)
    present = rng.random((s, n)) < 0.7
    return np.where(present[:, :, None], answers, 0).astype(np.float32), present, rng


def oracle(answers, present, rule, counts, eps):
    s, n, k = answers.shape
    out = np.zeros((n, k))
    for i in range(n):
        here = [j for j in range(s) if present[j, i]]
        if not here:
            continue
        for c in range(k):
            if rule == "uniform":
                out[i, c] = np.mean([answers[j, i, c] for j in here])
            elif rule == "entropy":
                w = [math.exp((answers[j, i] * np.log(answers[j, i] + 1e-12)).sum()) for j in here]
                out[i, c] = sum(w[x] * answers[j, i, c] for x, j in enumerate(here)) / sum(w)
            else:
                sure = dict.fromkeys(here, 1.0)
                if rule in ("answer_prior_log", "answer_peak_log"):
                    sure = {j: math.exp((answers[j, i] * np.log(answers[j, i] + 1e-12)).sum()) for j in here}
                total = sum(counts[j, c] * sure[j] for j in here)
                w = [counts[j, c] * sure[j] / total if total > 0 else 1 / len(here) for j in here]
                pooled = math.exp(sum(w[x] * math.log(answers[j, i, c] + eps) for x, j in enumerate(here)))
                out[i, c] = max(pooled - eps, 0) + 1e-9
        out[i] /= out[i].sum()
    return out


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_against_the_loop(rule, seed):
    answers, present, rng = sample(seed)
    counts = rng.integers(0, 4, (3, 4)).astype(np.float32)
    got = aggregate(answers, present, rule, counts=counts, smoothing=1e-4)
    np.testing.assert_allclose(got, oracle(answers, present, rule, counts, 1e-4), atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from(NAMES))
def test_rows_are_distributions_or_zero(seed, rule):
    answers, present, rng = sample(seed)
    got = aggregate(answers, present, rule, counts=rng.random((3, 4)).astype(np.float32))
    np.testing.assert_allclose(got.sum(1), present.any(0), atol=1e-5)
    assert (got >= 0).all()


def test_a_silo_that_knows_a_class_overrules_those_that_do_not():
    # silo 0 has only class 0, silo 1 only class 1; both are sure of their own class
    answers = np.array([[[0.99, 0.01]], [[0.4, 0.6]]], np.float32)
    counts = np.array([[100.0, 0.0], [0.0, 100.0]], np.float32)
    got = aggregate(answers, np.ones((2, 1), bool), "class_prior_log", counts=counts)
    np.testing.assert_allclose(got[0], np.array([0.99, 0.6]) / 1.59, rtol=1e-3)


def test_silos_that_share_no_counts_are_named():
    rule = RULES.get("class_prior_log")
    with pytest.raises(FederationError, match="silo-1.*share no class counts.*answer_peak_log"):
        class_counts(
            rule, ["silo-0", "silo-1"], {"silo-0": ClassReport((1.0, 2.0)), "silo-1": None}, LabelSets.by_number(2, 2)
        )
    with pytest.raises(FederationError, match="must be 3 per silo"):
        class_counts(rule, ["silo-0"], {"silo-0": ClassReport((1.0, 2.0))}, LabelSets.by_number(3, 1))
    assert class_counts(RULES.get("uniform"), ["silo-1"], {"silo-1": None}, LabelSets.by_number(2, 1)) is None


def test_class_entropy_spans_collapse_to_balance():
    assert class_entropy(np.eye(4, dtype=np.float32)) == pytest.approx(1.0)
    assert class_entropy(np.tile(np.eye(4, dtype=np.float32)[0], (9, 1))) == 0.0


@pytest.mark.parametrize("rule", ["class_prior_log", "answer_peak_log"])
def test_a_class_that_no_silo_has_is_shared_evenly_and_one_that_a_single_silo_has_is_its_own(rule):
    answers = np.array([[[0.7, 0.2, 0.1]], [[0.3, 0.6, 0.1]]], np.float32)  # class 2 is known to nobody
    counts = np.array([[9.0, 0.0, 0.0], [3.0, 4.0, 0.0]], np.float32)
    given = np.ones((2, 1), bool)
    shares = silo_shares(answers, given, rule, counts=counts)[:, 0]
    assert shares[:, 1].tolist() == [0, 1], "the only silo that has the class decides it"
    assert shares[:, 2].tolist() == [0.5, 0.5]
    got = aggregate(answers, given, rule, counts=counts)
    assert np.isfinite(got).all()
    ratio = got[0, 1] / got[0, 2]
    assert ratio == pytest.approx(0.6 / 0.1, rel=1e-3), "a single silo's word is taken as it is"
    # where the one that has it did not answer, the others are better than nobody
    alone = silo_shares(answers, np.array([[True], [False]]), rule, counts=counts)[:, 0]
    assert alone.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_noised_counts_weigh_nearly_as_exact_ones_and_none_may_be_all_zero():
    answers, _, rng = sample(3, s=4, n=200, k=5)
    answers = np.where(answers.sum(2, keepdims=True) > 0, answers, np.float32(0.2))
    given = np.ones((4, 200), bool)
    exact = rng.integers(100, 900, (4, 5)).astype(np.float32)
    noised = np.maximum(exact + rng.normal(0, 10, exact.shape), 0).astype(np.float32)
    whole = aggregate(answers, given, "class_prior_log", counts=exact)
    assert np.abs(aggregate(answers, given, "class_prior_log", counts=noised) - whole).max() < 0.05
    wiped = aggregate(answers, given, "class_prior_log", counts=np.zeros_like(exact))
    assert np.allclose(wiped.sum(1), 1, atol=1e-5), "noise may leave no count above zero"
