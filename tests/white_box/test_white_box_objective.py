# SPDX-License-Identifier: Apache-2.0
"""L_G and L_S, term by term, against loops; and the hooks that L_BN looks through."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedcpsc.models.registry import build_classifier
from fedcpsc.white_box.objective import batch_norm_inputs, batch_norms, generator_loss, student_loss
from fedcpsc.white_box.plan import LossPlan
from fedcpsc.white_box.quirks import Quirks

B, K, D = 6, 4, 5


@pytest.fixture
def drawn():
    stream = torch.Generator().manual_seed(3)
    t, s = (3 * torch.randn(B, K, generator=stream) for _ in range(2))
    t_features, s_features = (torch.randn(B, D, generator=stream) for _ in range(2))
    y = torch.tensor([0, 1, 1, 3, 0, 1])
    return t, s, t_features, s_features, y


def softmax(row):
    raised = [math.exp(value - max(row)) for value in row]
    return [value / sum(raised) for value in raised]


def kd(t, s):
    rows = zip(t.tolist(), s.tolist(), strict=True)
    each = [sum(p * math.log(p / q) for p, q in zip(softmax(a), softmax(b), strict=True)) for a, b in rows]
    return sum(each) / len(each)


def cross_entropy(logits, y):
    return -sum(math.log(softmax(row)[label]) for row, label in zip(logits.tolist(), y.tolist(), strict=True)) / len(y)


def contrast(s_features, t_features, y, temperature):
    views = [np.array(v) / np.linalg.norm(v) for v in [*s_features.tolist(), *t_features.tolist()]]
    labels = [*y.tolist(), *y.tolist()]
    each = []
    for a in range(len(views)):
        others = [j for j in range(len(views)) if j != a]
        total = sum(math.exp(views[a] @ views[j] / temperature) for j in others)
        positive = [j for j in others if labels[j] == labels[a]]
        each.append(-np.mean([math.log(math.exp(views[a] @ views[p] / temperature) / total) for p in positive]))
    return float(np.mean(each))


@pytest.mark.parametrize("log_l2", [False, True])
def test_the_students_loss_is_kd_plus_alpha_l2_plus_eta_ce(drawn, log_l2):
    t, s, _, _, y = drawn
    plan = LossPlan(alpha=2.0, eta=0.3, log_l2=log_l2)
    terms = student_loss(plan, t, s, y)
    squared = ((t - s) ** 2).numpy()
    wanted_l2 = math.log(math.sqrt(squared.sum())) if log_l2 else squared.mean()
    assert terms.kd.item() == pytest.approx(kd(t, s), rel=1e-5)
    assert terms.l2.item() == pytest.approx(wanted_l2, rel=1e-5)
    assert terms.ce.item() == pytest.approx(cross_entropy(s, y), rel=1e-5)
    assert terms.total.item() == pytest.approx(kd(t, s) + 2 * wanted_l2 + 0.3 * cross_entropy(s, y), rel=1e-5)
    assert (terms.bn.item(), terms.scl.item()) == (0, 0)


@pytest.mark.parametrize("log_l2", [False, True])
def test_the_generators_loss_has_all_five_terms_with_their_signs(drawn, log_l2):
    t, s, t_features, s_features, y = drawn
    plan = LossPlan(alpha=2.0, beta=0.5, gamma=0.7, eta=0.3, temperature=0.5, log_l2=log_l2)
    norm = torch.nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
    norm.running_var.copy_(torch.tensor([1.5, 0.5, 2.0]))
    x = torch.randn(B, 3, 2, 2, generator=torch.Generator().manual_seed(4))
    terms = generator_loss(plan, (t, t_features), (s, s_features), y, [norm], [x])
    of_channel = x.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    bn = np.linalg.norm(of_channel.var(1) - norm.running_var.numpy())
    bn += np.linalg.norm(of_channel.mean(1) - norm.running_mean.numpy())
    mse = ((t - s) ** 2).mean().item()
    l2, scl = math.log(mse) if log_l2 else mse, contrast(s_features, t_features, y, 0.5)
    assert terms.bn.item() == pytest.approx(bn, rel=1e-5)
    assert terms.l2.item() == pytest.approx(l2, rel=1e-5)
    assert terms.scl.item() == pytest.approx(scl, rel=1e-4)
    wanted = -kd(t, s) - 2 * l2 + 0.5 * bn + 0.7 * scl + 0.3 * cross_entropy(t, y)
    assert terms.total.item() == pytest.approx(wanted, rel=1e-4)


def test_the_reference_applies_softmax_twice_and_only_then(drawn):
    t, s, t_features, s_features, y = drawn
    plan = LossPlan(beta=0)
    quirk = student_loss(plan, t, s, y, quirks=Quirks(softmax_twice=True))
    assert quirk.ce.item() == pytest.approx(cross_entropy(torch.softmax(s, 1), y), rel=1e-5)
    assert quirk.kd.item() == student_loss(plan, t, s, y).kd.item()
    both = [
        generator_loss(plan, (t, t_features), (s, s_features), y, [], [], quirks=Quirks(softmax_twice=twice)).ce.item()
        for twice in (False, True)
    ]
    assert both == pytest.approx([cross_entropy(t, y), cross_entropy(torch.softmax(t, 1), y)], rel=1e-5)


def test_the_reference_scales_the_contrast_by_its_temperature_and_only_then(drawn):
    t, s, t_features, s_features, y = drawn

    def scl(temperature, scaled):
        plan, quirks = LossPlan(beta=0, temperature=temperature), Quirks(contrast_scaled=scaled)
        return generator_loss(plan, (t, t_features), (s, s_features), y, [], [], quirks=quirks).scl.item()

    assert scl(0.5, True) == pytest.approx(scl(0.5, False) * 0.5 / 0.07, rel=1e-5)
    assert scl(0.07, True) == scl(0.07, False)


@pytest.mark.parametrize("detached", [False, True])
def test_no_gradient_of_l2_passes_through_the_teacher_only_as_a_quirk(drawn, detached):
    t, s, t_features, s_features, y = drawn
    t.requires_grad_()
    s.requires_grad_()
    kd_alone, with_l2 = LossPlan(alpha=0, beta=0, gamma=0, eta=0), LossPlan(alpha=3.0, beta=0, gamma=0, eta=0)
    by_teacher, by_student = [], []
    for plan in (kd_alone, with_l2):
        quirks = Quirks(l2_detached=detached)
        loss = generator_loss(plan, (t, t_features), (s, s_features), y, [], [], quirks=quirks).total
        teacher, student = torch.autograd.grad(loss, (t, s))
        by_teacher.append(teacher)
        by_student.append(student)
    slope = 3.0 * 2 * (s - t).detach() / t.numel()  # of alpha MSE, by the student's logits
    torch.testing.assert_close(by_student[1] - by_student[0], -slope, rtol=1e-4, atol=1e-6)
    of_l2 = torch.zeros_like(slope) if detached else slope
    torch.testing.assert_close(by_teacher[1] - by_teacher[0], of_l2, rtol=1e-4, atol=1e-6)


def test_hooks_see_what_enters_each_batch_norm_and_are_gone_afterwards():
    network = build_classifier("convnet", 3, (1, 8, 8), width=4, seed=1).eval()
    norms = batch_norms(network)
    assert len(norms) == 4
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    with batch_norm_inputs(norms) as seen:
        network(x)
        assert [seen[norm].shape[1] for norm in norms] == [norm.num_features for norm in norms]
        assert torch.equal(seen[norms[0]], network.stem(x))
        F.relu(seen[norms[-1]]).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not seen
    assert all(not norm._forward_pre_hooks for norm in norms)
