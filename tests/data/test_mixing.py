# SPDX-License-Identifier: Apache-2.0
"""Mixup and cutmix against the papers' algorithms in slow NumPy."""

import numpy as np
import pytest
import torch

from fedcpsc.data.mixing import Blend, Mixing, blended, draw_blend

SHAPE = (6, 2, 5, 7)


def batch():
    stream = torch.Generator().manual_seed(1)
    return torch.rand(SHAPE, generator=stream) * 2 - 1, torch.rand(6, 3, generator=stream).softmax(1)


def oracle(images, targets, blend):
    """One image after the other, one pixel after the other."""
    images, targets = images.numpy(), targets.numpy()
    mixed, wanted = np.zeros_like(images), np.zeros_like(targets)
    for i, j in enumerate(blend.order.tolist()):
        inside = 0
        for y in range(SHAPE[2]):
            for x in range(SHAPE[3]):
                if blend.box is None:
                    mixed[i, :, y, x] = blend.own * images[i, :, y, x] + (1 - blend.own) * images[j, :, y, x]
                    continue
                top, bottom, left, right = blend.box
                of_other = top <= y < bottom and left <= x < right
                inside += of_other
                mixed[i, :, y, x] = images[j if of_other else i, :, y, x]
        own = blend.own if blend.box is None else 1 - inside / (SHAPE[2] * SHAPE[3])
        wanted[i] = own * targets[i] + (1 - own) * targets[j]
    return mixed, wanted


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(0.4, 1.0)])
def test_images_and_targets_are_those_of_the_papers(mixing):
    images, targets = batch()
    before = images.clone(), targets.clone()
    random = np.random.default_rng(2)
    for _ in range(30):
        blend = draw_blend(mixing, SHAPE, random)
        mixed, wanted = blended(images, targets, blend)
        expected = oracle(images, targets, blend)
        np.testing.assert_allclose(mixed.numpy(), expected[0], atol=1e-6)
        np.testing.assert_allclose(wanted.numpy(), expected[1], atol=1e-6)
        torch.testing.assert_close(wanted.sum(1), torch.ones(6))
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


def test_a_share_of_one_leaves_the_batch_and_of_zero_puts_the_others_in_its_place():
    images, targets = batch()
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    for own, wanted in ((1.0, (images, targets)), (0.0, (images[order], targets[order]))):
        found = blended(images, targets, Blend(order, own))
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])
    whole = blended(images, targets, Blend(order, 0.0, (0, 5, 0, 7)))
    assert torch.equal(whole[0], images[order])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_drawn_from_beta(alpha):
    """Mean 1/2 and variance 1/(4 (2 alpha + 1)); each bound is over five standard errors away."""
    random = np.random.default_rng(3)
    shares = np.array([draw_blend(Mixing(mixup=alpha), SHAPE, random).own for _ in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 5.5 * np.sqrt(variance / 4000)
    assert 0.85 * variance < shares.var() < 1.15 * variance


def test_boxes_lie_inside_lie_anywhere_and_are_as_large_as_the_share_says():
    random = np.random.default_rng(4)
    covered = np.zeros(SHAPE[2:])
    for _ in range(2000):
        blend = draw_blend(Mixing(cutmix=1.0), SHAPE, random)
        top, bottom, left, right = blend.box
        assert 0 <= top <= bottom <= 5
        assert 0 <= left <= right <= 7
        assert blend.own == pytest.approx(1 - (bottom - top) * (right - left) / 35)
        covered[top:bottom, left:right] += 1
    assert covered.min() > 150


def test_with_both_about_half_of_the_batches_are_cut():
    random = np.random.default_rng(5)
    cut = sum(draw_blend(Mixing(1.0, 1.0), SHAPE, random).box is not None for _ in range(1000))
    assert 420 < cut < 580


def test_the_same_generator_draws_the_same():
    one, other = (draw_blend(Mixing(0.4, 0.4), SHAPE, np.random.default_rng(9)) for _ in range(2))
    assert (one.own, one.box) == (other.own, other.box)
    assert torch.equal(one.order, other.order)
    assert not Mixing().is_on
