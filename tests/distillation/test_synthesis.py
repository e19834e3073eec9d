# SPDX-License-Identifier: Apache-2.0
"""Query images: whose they are, what they follow from, and what the generator is pulled towards."""

import numpy as np
import pytest
import torch

from fedcpsc.config import SynthesisConfig
from fedcpsc.distillation.synthesis import generator_loss, synthesise, train_generator
from fedcpsc.models.frozen import frozen
from fedcpsc.models.registry import build_classifier
from fedcpsc.recipes.drawing import balanced_labels

SHAPE = (1, 8, 8)


def config(**changes):
    return SynthesisConfig(
        **{"width": 4, "batch_size": 32, "steps": 3, "candidates": 1, "moments": (0.0, 0.5), **changes}
    )


def committee(count=2):
    return [build_classifier("convnet", 4, SHAPE, 4, seed=i) for i in range(count)]


def make(settings, round_index=5, count=50, seed=7):
    return synthesise(
        settings,
        committee(),
        count,
        round_index=round_index,
        rounds=10,
        classes=4,
        image_shape=SHAPE,
        seed=seed,
        device=torch.device("cpu"),
    )


def test_shares_and_warm_up():
    images, y, generator, _ = make(config(prior_share=0.3))
    assert images.shape == (50, *SHAPE)
    assert images.dtype == np.uint8
    assert (y == -1).sum() == 15
    assert np.bincount(y[y >= 0]).tolist() in ([9, 9, 9, 8], [9, 9, 8, 9], [9, 8, 9, 9], [8, 9, 9, 9])
    assert generator is not None
    images, y, generator, _ = make(config(warmup_share=0.1), round_index=0)
    assert generator is None
    assert (y == -1).all()


def test_selection_leaves_each_source_its_share():
    """Whatever the committee is least sure of: left to compete, one source could take all places."""
    for share, own in ((0.3, 15), (0.8, 40)):
        _, y, _, _ = make(config(prior_share=share, candidates=4))
        assert (y == -1).sum() == own
        assert len(y) == 50


def test_everything_follows_from_seed_and_round():
    first, again, other = make(config()), make(config()), make(config(), round_index=6)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    assert (first[0] != make(config(), seed=8)[0]).any()


def test_synthesis_leaves_committee_and_global_random_state_alone():
    nets = committee()
    before = [p.clone() for net in nets for p in net.state_dict().values()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_generator(config(), nets, 4, SHAPE, 1, torch.device("cpu"))
    assert torch.equal(torch.rand(1), expected)
    for old, new in zip(before, (p for net in nets for p in net.state_dict().values()), strict=True):
        assert torch.equal(old, new)
    assert all(p.requires_grad for net in nets for p in net.parameters())


@pytest.mark.parametrize("term", ["class_weight", "balance_weight", "moment_weight", "contrastive_weight"])
def test_each_term_alone_reaches_the_pixels_and_is_lowered_by_its_gradient(term):
    off = {"class_weight": 0.0, "balance_weight": 0.0, "moment_weight": 0.0, "contrastive_weight": 0.0}
    settings = config(**{**off, term: 1.0}, shift=0, moments=(0.3, 0.2))
    torch.manual_seed(0)
    pixels = torch.randn(16, *SHAPE).requires_grad_()
    y = torch.arange(16) % 4
    nets = committee()
    stream = torch.Generator().manual_seed(0)
    with frozen(nets):
        loss = generator_loss(settings, pixels, y, nets, stream)
        loss.backward()
        assert pixels.grad.abs().sum() > 0
        step = 1e-2 / pixels.grad.norm()
        lower = generator_loss(settings, (pixels - step * pixels.grad).detach(), y, nets, stream)
    assert lower < loss


def test_a_generator_learns_what_the_committee_calls_y():
    nets = committee(1)
    optimiser = torch.optim.Adam(nets[0].parameters(), 1e-2)
    torch.manual_seed(0)
    for _ in range(60):  # classes by mean brightness: something a generator can aim at
        y = torch.arange(64) % 4
        optimiser.zero_grad()
        shades = ((y - 1.5) / 2)[:, None, None, None] + 0.1 * torch.randn(64, *SHAPE)
        torch.nn.functional.cross_entropy(nets[0](shades), y).backward()
        optimiser.step()
    settings = config(steps=60, balance_weight=0.0, moment_weight=0.0, shift=0, learning_rate=1e-2)
    generator = train_generator(settings, nets, 4, SHAPE, 1, torch.device("cpu"))
    stream = torch.Generator().manual_seed(0)
    y = balanced_labels(64, 4, stream)
    with frozen(nets), torch.no_grad():
        agreed = (nets[0](generator(torch.randn(64, settings.latent), y)).argmax(1) == y).float().mean()
    assert agreed > 0.8


def test_in_bfloat16_the_generator_learns_and_its_images_differ_by_rounding():
    exact, rounded = make(config(precision="float32")), make(config(precision="bfloat16"))
    assert 0 < np.abs(exact[0].astype(int) - rounded[0]).mean() < 3, "of 255 tones"
    np.testing.assert_array_equal(exact[1], rounded[1])
    assert all(p.dtype == torch.float32 for p in rounded[2].parameters())
