# SPDX-License-Identifier: Apache-2.0
"""Noisy answers, read by their noise: against quadrature, against the projection, and against the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from fedcpsc.distillation.denoising import denoise, read_answer
from fedcpsc.protocol.messages import Answer, AnswerForm, decode_answers


def noisy(seed, sigma, count=400, classes=10):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 1 / classes), count).astype(np.float32)
    return p, (p + rng.normal(0, sigma, p.shape)).astype(np.float32)


def answer(values, form=AnswerForm.PROBABILITIES, indices=None, classes=10):
    return Answer("0" * 32, form, classes, values, 0, indices)


def clipped(values):
    return decode_answers(answer(values, classes=values.shape[1]))


def by_quadrature(said, sigma):
    """E[p_c] under b(p) phi(said_c - p) exp(s p / sigma^2), with s such that they sum to 1."""
    classes = len(said)

    def mean(v):
        def moment(n):
            def integrand(p):  # without the prior, which quad takes as a weight: it is not bounded
                return p**n * np.exp(-((v - p) ** 2 - min(v, 0) ** 2) / (2 * sigma**2))

            return quad(integrand, 0, 1, weight="alg", wvar=(1 / classes - 1, -1 / classes))[0]

        return moment(1) / moment(0)

    shift = brentq(lambda s: sum(mean(v + s) for v in said) - 1, -1.5, 1.5)
    return np.array([mean(v + shift) for v in said])


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_against_quadrature(sigma):
    _, said = noisy(1, sigma, count=3, classes=4)
    for row, got in zip(said, denoise(said, sigma), strict=True):
        assert got == pytest.approx(by_quadrature(row.astype(np.float64), sigma), abs=1e-4)


def test_with_hardly_any_noise_it_is_the_projection_onto_the_simplex():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(5, 5.0), 200)
    outside = (p + rng.normal(0, 0.005, p.shape)).astype(np.float32)
    falling = -np.sort(-outside, axis=1)
    thresholds = (falling.cumsum(1) - 1) / np.arange(1, 6)
    kept = (falling > thresholds).sum(1)
    projected = np.maximum(outside - thresholds[np.arange(len(p)), kept - 1][:, None], 0)
    inside = (p > 0.05).all(1)  # near 0 the prior's pull is felt
    assert inside.sum() > 100
    assert np.abs(denoise(outside, 0.005) - projected)[inside].max() < 0.002


@pytest.mark.parametrize(("sigma", "share"), [(0.1, 0.6), (0.3, 0.9)])
@pytest.mark.parametrize("bits", [8, 32])
def test_it_is_nearer_the_truth_than_clipping(sigma, share, bits):
    p, said = noisy(4, sigma)
    if bits == 8:
        said = (np.rint(np.clip(said, 0, 1) * 255) / 255).astype(np.float32)
    mine, plain = (((read - p) ** 2).sum(1).mean() for read in (denoise(said, sigma), clipped(said)))
    assert mine < share * plain


@given(st.integers(0, 10_000), st.floats(1e-3, 50), st.integers(2, 60))
@settings(deadline=None, max_examples=40)
def test_rows_are_distributions_and_keep_their_order(seed, sigma, classes):
    _, said = noisy(seed, sigma, count=5, classes=classes)
    got = denoise(said, sigma)
    assert got.sum(1) == pytest.approx(np.ones(5), abs=1e-5)
    assert (got >= 0).all()
    rising = np.take_along_axis(got, said.argsort(1), axis=1)
    assert (np.diff(rising, axis=1) >= 0).all()


def test_noise_without_end_tells_nothing():
    _, said = noisy(5, 1e4, count=20, classes=1000)
    assert np.abs(denoise(said, 1e4) - 1e-3).max() < 1e-3


def test_what_has_no_noise_or_shows_no_probabilities_is_decoded_as_ever():
    p, said = noisy(6, 0.1)
    labels = answer(p.argmax(1).astype(np.uint16), AnswerForm.LABEL)
    order = np.argsort(-p, axis=1)[:, :3]
    top = answer(np.take_along_axis(said, order, 1), AnswerForm.TOP_K, order.astype(np.uint16))
    for one, sigma in ((answer(said), 0.0), (labels, 0.1), (top, 0.1)):
        assert np.array_equal(read_answer(one, sigma), decode_answers(one))
    eight = np.rint(np.clip(said, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(read_answer(answer(eight), 0.1), denoise(eight / np.float32(255), 0.1))
