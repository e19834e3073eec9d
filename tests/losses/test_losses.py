# SPDX-License-Identifier: Apache-2.0
"""Losses against slow NumPy oracles, closed forms and gradient paths."""

import math

import numpy as np
import pytest
import torch

from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.losses.distillation import kl_divergence, l2_logits, soft_cross_entropy
from fedcpsc.losses.synthesis import batch_norm_prior, moment_loss, negative_batch_entropy


def _softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_soft_cross_entropy_is_the_mean_of_minus_p_log_q(rng):
    s, p = rng.normal(size=(7, 5)), _softmax(rng.normal(size=(7, 5)))
    expected = np.mean([-(p[i] * np.log(_softmax(s)[i])).sum() for i in range(7)])
    assert soft_cross_entropy(torch.tensor(s), torch.tensor(p)).item() == pytest.approx(expected)


def test_soft_cross_entropy_is_least_where_the_student_equals_the_target():
    p = torch.tensor([[0.7, 0.2, 0.1]])
    least = soft_cross_entropy(p.log(), p)
    assert least.item() == pytest.approx(-(p * p.log()).sum().item())
    assert soft_cross_entropy(p.log() + torch.tensor([[0.1, 0.0, 0.0]]), p) > least


def test_weights_single_out_images(rng):
    s, p = torch.tensor(rng.normal(size=(3, 4))), torch.tensor(_softmax(rng.normal(size=(3, 4))))
    only_second = soft_cross_entropy(s, p, torch.tensor([0.0, 2.0, 0.0]))
    assert only_second.item() == pytest.approx(soft_cross_entropy(s[1:2], p[1:2]).item())


def test_kl_against_the_oracle_and_zero_for_equals(rng):
    t, s = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    pt, ps = _softmax(t), _softmax(s)
    expected = (pt * (np.log(pt) - np.log(ps))).sum(1).mean()
    assert kl_divergence(torch.tensor(t), torch.tensor(s)).item() == pytest.approx(expected)
    assert kl_divergence(torch.tensor(t), torch.tensor(t) + 3.0).item() == pytest.approx(0.0, abs=1e-12)


def test_l2_and_its_logarithm():
    t, s = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    assert l2_logits(t, s).item() == 4.0
    assert l2_logits(t, s, log=True).item() == pytest.approx(math.log(4.0))


def _supcon_oracle(views, labels, tau):
    v, b, _ = views.shape
    f = views / np.linalg.norm(views, axis=2, keepdims=True)
    f = f.reshape(v * b, -1)
    y = np.tile(labels, v)
    per_anchor = []
    for a in range(v * b):
        others = [j for j in range(v * b) if j != a]
        positives = [j for j in others if y[j] == y[a]]
        if not positives:
            continue
        total = sum(math.exp(f[a] @ f[j] / tau) for j in others)
        per_anchor.append(np.mean([-math.log(math.exp(f[a] @ f[p] / tau) / total) for p in positives]))
    return np.mean(per_anchor)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_supervised_contrast_against_the_papers_double_loop(rng, tau):
    views, labels = rng.normal(size=(2, 6, 8)), np.array([0, 1, 0, 2, 1, 3])
    got = supervised_contrastive(torch.tensor(views), torch.tensor(labels), tau)
    assert got.item() == pytest.approx(_supcon_oracle(views, labels, tau))


def test_supervised_contrast_of_aligned_classes_has_a_closed_form():
    # two classes, orthogonal, both views equal: each anchor has 1 positive at cosine 1 and 2 negatives at cosine 0
    views = torch.eye(2).repeat(2, 1, 1)
    tau = 0.5
    expected = -math.log(math.exp(1 / tau) / (math.exp(1 / tau) + 2))
    assert supervised_contrastive(views, torch.tensor([0, 1]), tau).item() == pytest.approx(expected, rel=1e-5)


def test_supervised_contrast_without_positives_is_zero_and_has_a_gradient():
    views = torch.randn(1, 3, 4, requires_grad=True)
    loss = supervised_contrastive(views, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(views.grad).all()


def test_supervised_contrast_pulls_a_class_together():
    views = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    before = supervised_contrastive(views, labels)
    before.backward()
    after = supervised_contrastive(views - 0.1 * views.grad, labels)
    assert after < before


def test_negative_batch_entropy_spans_minus_one_to_zero():
    even = torch.zeros(4, 10)
    one_class = torch.full((4, 10), -60.0).index_fill(1, torch.tensor([3]), 60.0)
    assert negative_batch_entropy(even).item() == pytest.approx(-1.0)
    assert negative_batch_entropy(one_class).item() == pytest.approx(0.0, abs=1e-5)


def test_moment_loss_is_zero_at_the_moments_and_reaches_the_pixels():
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean, std = x.mean().item(), x.std().item()
    assert moment_loss(x, mean, std).item() == pytest.approx(0.0, abs=1e-10)
    loss = moment_loss(x, mean + 0.5, std)
    loss.backward()
    assert loss.item() == pytest.approx(0.25, rel=1e-4)
    assert x.grad.abs().sum() > 0


def test_batch_norm_prior_against_the_oracle(rng):
    x = rng.normal(1.5, 2.0, size=(8, 3, 4, 4))
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    expected = np.linalg.norm(x.var((0, 2, 3)) - var) + np.linalg.norm(x.mean((0, 2, 3)) - mean)
    got = batch_norm_prior([torch.tensor(x)], [torch.tensor(mean)], [torch.tensor(var)])
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_the_batch_norm_prior_is_that_of_finite_differences(rng, layout):
    x = torch.tensor(rng.normal(1.5, 2.0, size=(3, 2, 2, 3))).to(memory_format=layout).requires_grad_()
    mean, var = torch.tensor(rng.normal(size=2)), torch.tensor(rng.uniform(0.5, 2, size=2))
    assert torch.autograd.gradcheck(lambda x: batch_norm_prior([x], [mean], [var]), (x,))
