# SPDX-License-Identifier: Apache-2.0
"""Batched shadows are what each would be alone, trained in the plainest way there is."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedcpsc.audit.plan import DpSgdAudit, ShadowsPlan, StudentsPlan
from fedcpsc.audit.shadow_nets import ShadowNet
from fedcpsc.audit.shadows import (
    distil_students,
    draw_membership,
    noise_multiplier_of,
    predict_shadows,
    proven_epsilon,
    train_private_shadows,
    train_shadows,
)
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.errors import DataError
from fedcpsc.seeding import derive_seed, numpy_generator

SHAPE, CLASSES = (2, 6, 8), 3
SEEDS = [5, 6, 7]


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (24, *SHAPE)).astype(np.uint8), rng.integers(0, CLASSES, 24), CLASSES)


def net(architecture):
    return ShadowNet(architecture, 4, CLASSES, SHAPE)


class Alone(nn.Module):
    """Shadow `index` as an ordinary module, with the same first weights."""

    def __init__(self, shadow_net, parameters, index):
        super().__init__()
        own = [p[index].detach().clone() for p in parameters]
        self.p = nn.ParameterList(own)
        self.convolutions = 2 if shadow_net.architecture == "convnet" else 0

    def forward(self, x):
        for k in range(self.convolutions):
            x = F.max_pool2d(F.relu(F.conv2d(x, self.p[2 * k], self.p[2 * k + 1], padding=1)), 2)
        x = x.flatten(1)
        for k in range(self.convolutions, len(self.p) // 2):
            x = F.relu(x) if k > self.convolutions else x
            x = F.linear(x, self.p[2 * k].T, self.p[2 * k + 1])
        return x


def started(shadow_net, index, *names):
    seeds = [derive_seed(seed, *names, "initialisation") for seed in SEEDS]
    return Alone(shadow_net, shadow_net.initial(seeds), index)


def same(alone, parameters, index, tolerance=2e-5):
    for mine, batched in zip(alone.p, parameters, strict=True):
        torch.testing.assert_close(mine.detach(), batched[index], rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("architecture", ["mlp", "convnet"])
def test_a_shadow_of_a_batch_is_the_one_trained_alone(pool, architecture):
    plan = ShadowsPlan(epochs=3, batch_size=4, weight_decay=1e-3)
    member = draw_membership(1, len(SEEDS), len(pool))
    batched = train_shadows(net(architecture), pool, member, plan, SEEDS)
    steps = 3 * math.ceil(12 / 4)
    for index, seed in enumerate(SEEDS):
        alone = started(net(architecture), index)
        own, rng = np.flatnonzero(member[index]), numpy_generator(seed, "order")
        order = np.concatenate([rng.permutation(own.astype(np.int32)) for _ in range(20)])
        optimiser = torch.optim.Adam(alone.parameters(), lr=plan.learning_rate, weight_decay=1e-3)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = plan.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            rows = order[4 * step : 4 * step + 4]
            optimiser.zero_grad()
            x = to_pixels(torch.from_numpy(pool.images[rows]))
            F.cross_entropy(alone(x), torch.from_numpy(pool.labels[rows])).backward()
            optimiser.step()
        same(alone, batched, index)
        with torch.no_grad():
            expected = alone(to_pixels(torch.from_numpy(pool.images))).softmax(1)
        predicted = predict_shadows(net(architecture), batched, pool.images)[index]
        torch.testing.assert_close(torch.from_numpy(predicted), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["mlp", "convnet"])
def test_private_training_clips_each_image_and_adds_the_noise_once(pool, architecture):
    """Oracle: one backward pass for each image."""
    plan = DpSgdAudit(epsilon=1, epochs=2, batch_size=6, noise_multiplier=0.7, max_grad_norm=0.5)
    member = draw_membership(2, len(SEEDS), len(pool))
    batched = train_private_shadows(net(architecture), pool, member, plan, SEEDS)
    clipped = 0
    for index, seed in enumerate(SEEDS):
        alone = started(net(architecture), index)
        flips = torch.Generator().manual_seed(derive_seed(seed, "sampling"))
        noises = torch.Generator().manual_seed(derive_seed(seed, "noise"))
        optimiser = torch.optim.Adam(alone.parameters(), lr=plan.learning_rate)
        for _ in range(4):  # two epochs of half of 24 images at 6 a batch
            taken = (torch.rand(24, generator=flips).numpy() < 0.5) & member[index]
            total = [torch.zeros_like(p) for p in alone.p]
            for row in np.flatnonzero(taken):
                alone.zero_grad()
                x = to_pixels(torch.from_numpy(pool.images[[row]]))
                F.cross_entropy(alone(x), torch.from_numpy(pool.labels[[row]])).backward()
                norm = math.sqrt(sum(float(p.grad.square().sum()) for p in alone.p))
                clipped += norm > 0.5
                for part, p in zip(total, alone.p, strict=True):
                    part.add_(p.grad, alpha=min(1.0, 0.5 / norm))
            for part, p in zip(total, alone.p, strict=True):
                p.grad = (part + 0.7 * 0.5 * torch.randn(part.shape, generator=noises)) / 6
            optimiser.step()
        same(alone, batched, index)
    assert clipped > 20


def test_a_student_sees_its_own_teachers_answers(pool):
    plan = StudentsPlan(steps=6, batch_size=5, noise=0.1)
    targets = np.random.default_rng(3).dirichlet(np.ones(CLASSES), (len(SEEDS), len(pool))).astype(np.float32)
    batched = distil_students(net("mlp"), pool.images, targets, plan, SEEDS)
    for index, seed in enumerate(SEEDS):
        alone = started(net("mlp"), index, "student")
        stream = torch.Generator().manual_seed(derive_seed(seed, "student"))
        optimiser = torch.optim.Adam(alone.parameters(), lr=plan.learning_rate)
        for step in range(6):
            optimiser.param_groups[0]["lr"] = plan.learning_rate * 0.5 * (1 + math.cos(math.pi * step / 6))
            rows = torch.randint(len(pool), (5,), generator=stream)
            x = to_pixels(torch.from_numpy(pool.images))[rows] + 0.1 * torch.randn(5, *SHAPE, generator=stream)
            optimiser.zero_grad()
            wanted = torch.from_numpy(targets[index])[rows]
            (-(wanted * F.log_softmax(alone(x), 1)).sum(1).mean()).backward()
            optimiser.step()
        same(alone, batched, index)


def test_coins_are_fair_independent_and_the_same_whoever_else_is_audited():
    coins = draw_membership(1, 64, 1000)
    assert abs(coins.mean() - 0.5) < 0.01  # 5 standard deviations
    pairs = np.corrcoef(coins.astype(float))[np.triu_indices(64, 1)]
    assert abs(pairs).max() < 0.2
    assert not np.all(coins.sum(1) == 500)  # independent flips, not exactly half
    assert np.array_equal(draw_membership(1, 3, 1000), coins[:3])


def test_the_noise_is_what_the_accountant_asks_for():
    plan = DpSgdAudit(epsilon=2)
    assert proven_epsilon(plan, 1000) == pytest.approx(2, abs=0.02)
    more = noise_multiplier_of(plan, 1000) * 1.2
    assert proven_epsilon(plan.model_copy(update={"noise_multiplier": more}), 1000) < 1.8
    assert proven_epsilon(plan.model_copy(update={"noise_multiplier": 0.0}), 1000) == math.inf


def test_a_shadow_without_members_is_named(pool):
    with pytest.raises(DataError, match="no member"):
        train_shadows(net("mlp"), pool, np.zeros((1, len(pool)), bool), ShadowsPlan(), [1])
