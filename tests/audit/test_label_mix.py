# SPDX-License-Identifier: Apache-2.0
"""A class mix guessed from answers, and how near it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.audit.label_mix import correlation, estimate_mix, label_mix_leak, total_variation
from fedcpsc.errors import AuditError

SHARES = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda x: np.array(x) / sum(x))


def answers_of(prior: np.ndarray, count: int, strength: float, seed: int = 0) -> np.ndarray:
    """A Bayesian teacher: log posterior = log prior + evidence of the image, none on average."""
    evidence = np.random.default_rng(seed).normal(0, strength, (count, len(prior)))
    posterior = prior * np.exp(evidence)
    return posterior / posterior.sum(1, keepdims=True)


def test_noise_gives_the_mix_of_a_teacher_that_falls_back_on_its_prior():
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    leak = label_mix_leak(answers_of(prior, 5000, 0.5), prior * 1000)
    assert leak.estimate == pytest.approx(prior, abs=0.03)
    assert leak.total_variation < 0.05
    assert leak.uniform_total_variation == pytest.approx(0.3)
    assert leak.correlation > 0.99


def test_probes_of_unequal_number_are_balanced():
    prior = np.array([0.6, 0.3, 0.1])
    labels = np.repeat([0, 1, 2], [500, 50, 10])
    seen = answers_of(prior, 560, 0.1)
    seen = seen * (1 + 3 * np.eye(3)[labels])  # each probe also shows its own class
    seen /= seen.sum(1, keepdims=True)
    balanced, raw = estimate_mix(seen, labels), estimate_mix(seen)
    by_hand = np.mean([seen[labels == k].mean(0) for k in range(3)], axis=0)
    assert balanced == pytest.approx(by_hand)
    assert total_variation(balanced, prior) < total_variation(raw, prior)


def test_labels_alone_are_counted():
    one_hot = np.eye(3)[[0, 0, 0, 1]]
    assert estimate_mix(one_hot).tolist() == [0.75, 0.25, 0.0]


@given(SHARES, SHARES, SHARES)
def test_total_variation_is_a_distance_of_at_most_1(p, q, r):
    assert total_variation(p, p) == 0
    assert total_variation(p, q) == pytest.approx(total_variation(q, p))
    assert total_variation(p, r) <= total_variation(p, q) + total_variation(q, r) + 1e-12
    assert total_variation(p, q) == pytest.approx(sum(max(a - b, 0) for a, b in zip(p, q, strict=True)))
    assert total_variation([1, 0], [0, 1]) == 1


@given(SHARES, SHARES)
def test_correlation_is_pearsons_and_0_where_nothing_varies(p, q):
    if min(p.std(), q.std()) > 1e-6:
        assert correlation(p, q) == pytest.approx(np.corrcoef(p, q)[0, 1], abs=1e-6)
    assert correlation(np.full(4, 0.25), q) == 0


@pytest.mark.parametrize(
    ("answers", "labels", "counts", "message"),
    [
        (np.zeros((0, 3)), None, [1, 1, 1], "answers="),
        (np.zeros((2, 3)), None, [1, 1, 1], "answers="),
        (np.array([[0.5, np.nan, 0.5]]), None, [1, 1, 1], "answers="),
        (np.ones((2, 3)), [0], [1, 1, 1], "probe_labels="),
        (np.ones((2, 3)), None, [1, 1], "counts="),
        (np.ones((2, 3)), None, [0, 0, 0], "counts="),
    ],
)
def test_what_does_not_fit_is_refused(answers, labels, counts, message):
    with pytest.raises(AuditError, match=message):
        label_mix_leak(answers, counts, labels)
