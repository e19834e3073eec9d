# SPDX-License-Identifier: Apache-2.0
"""The model zoo: published parameter counts, shapes at every size, the contract of `Classifier`."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedcpsc.errors import ConfigError
from fedcpsc.models import registry
from fedcpsc.models.classifier import HeadedClassifier, Pointwise
from fedcpsc.models.convnet import group_norm
from fedcpsc.models.registry import ARCHITECTURES, build_classifier, check_trainable

SIZES = [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
SMALL = ["convnet", "convnet_gn", "lenet5", "wrn16_1", "resnet18_narrow"]  # quick enough to train in a test


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("architecture", "cifar10", "cifar100"),
    [
        # CIFAR-form ResNets with projection shortcuts
        ("resnet18", 11_173_962, 11_220_132),
        ("resnet34", 21_282_122, 21_328_292),
        # the common PyTorch Wide ResNets of the distillation literature (0.2, 0.7, 0.6 and 2.2 M in its tables)
        ("wrn16_1", 175_066, 180_916),
        ("wrn16_2", 691_674, 703_284),
        ("wrn40_1", 563_930, 569_780),
        ("wrn40_2", 2_243_546, 2_255_156),
        # VGG-11 with batch norm, convolutions with bias, one linear layer
        ("vgg11", 9_231_114, 9_277_284),
        ("lenet5", 62_006, 69_656),
    ],
)
def test_parameter_counts_are_the_published_ones(architecture, cifar10, cifar100):
    with torch.device("meta"):
        counts = [parameters(build_classifier(architecture, classes, (3, 32, 32))) for classes in (10, 100)]
    assert counts == [cifar10, cifar100]


def test_lenet_of_one_channel_has_its_published_size():
    assert parameters(build_classifier("lenet5", 10, (1, 28, 28))) == 61_706


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_every_size(architecture, shape):
    network = build_classifier(architecture, 7, shape, width=8, seed=1).eval()
    x = torch.rand(2, *shape) * 2 - 1
    with torch.no_grad():
        logits, features = network.forward_with_features(x)
        assert logits.shape == (2, 7)
        assert features.shape == (2, network.feature_size)
        assert torch.isfinite(logits).all()
        assert torch.equal(network(x), logits)
        assert torch.equal(network.features(x), features)
        assert torch.equal(network.head(features), logits)
    assert not torch.allclose(features.norm(dim=1), torch.ones(2))  # not normalised


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradient_reaches_the_image_and_every_parameter(architecture):
    network = build_classifier(architecture, 3, (1, 16, 16), width=8, seed=1)
    x = (torch.rand(4, 1, 16, 16) * 2 - 1).requires_grad_()
    F.cross_entropy(network(x), torch.tensor([0, 1, 2, 0])).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("architecture", SMALL)
def test_small_architectures_learn(architecture):
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = (x[:, 0, :, :4].mean((1, 2)) > x[:, 0, :, 4:].mean((1, 2))).long()
    network = build_classifier(architecture, 2, (1, 8, 8), width=8, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(120):
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    assert (network(x).argmax(1) == y).float().mean() > 0.9


def test_the_seed_decides_the_initialisation_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = (build_classifier("convnet", 3, (1, 8, 8), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.stem.weight, c.stem.weight)


def test_without_a_seed_the_global_generator_decides():
    torch.manual_seed(5)
    a, b = (build_classifier("convnet", 3, (1, 8, 8)) for _ in range(2))
    torch.manual_seed(5)
    c = build_classifier("convnet", 3, (1, 8, 8))
    assert torch.equal(a.stem.weight, c.stem.weight)
    assert not torch.equal(a.stem.weight, b.stem.weight)


def test_group_norm_convnet_keeps_images_apart():
    network = build_classifier("convnet_gn", 3, (1, 8, 8), seed=1).train()
    x = torch.randn(4, 1, 8, 8)
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(network(x)[:1], network(x[:1]), atol=1e-5)
    for channels in (1, 5, 8, 16, 24, 64, 96):
        norm = group_norm(channels)
        assert norm.num_groups <= 8
        assert channels // norm.num_groups >= min(4, channels)


def test_the_convnet_grows_by_a_stage_for_each_doubling():
    stages = {
        side: build_classifier("convnet", 2, (1, side, side), 4).feature_size // 4 for side in (8, 32, 33, 64, 128)
    }
    assert stages == {8: 4, 32: 4, 33: 8, 64: 8, 128: 16}


@pytest.mark.parametrize(
    ("typo", "nearest"), [("resnet_18", "resnet18"), ("wrn_40_2", "wrn40_2"), ("convnett", "convnet")]
)
def test_unknown_architecture_names_the_nearest(typo, nearest):
    with pytest.raises(ConfigError, match=f"architecture='{typo}': unknown; the nearest is '{nearest}'"):
        build_classifier(typo, 10, (1, 8, 8))


@pytest.mark.parametrize(
    ("classes", "shape", "width"), [(1, (1, 8, 8), 8), (3, (0, 8, 8), 8), (3, (1, 3, 8), 8), (3, (1, 8, 8), 0)]
)
def test_sizes_out_of_range_are_refused(classes, shape, width):
    with pytest.raises(ConfigError, match="classes, image_shape, width="):
        build_classifier("convnet", classes, shape, width)


def test_a_training_step_of_the_small_convnet_is_quick():
    """About 15 ms of one core of 2024; the bound only catches a network that is several times too large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = build_classifier("convnet", 10, (1, 28, 28), 16, seed=1)
        x, y = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
        seconds = []
        for _ in range(8):
            start = time.process_time()
            network.zero_grad()
            F.cross_entropy(network(x), y).backward()
            seconds.append(time.process_time() - start)
        assert min(seconds) < 0.15
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("channels", [1, 4, 7, 8, 12])
def test_a_pointwise_convolution_is_a_convolution_whatever_its_layout(channels):
    torch.manual_seed(0)
    ours, plain = Pointwise(channels, 6, stride=2), nn.Conv2d(channels, 6, 1, 2, bias=False)
    plain.load_state_dict(ours.state_dict())
    ours.to(memory_format=torch.channels_last)
    x = torch.randn(33, channels, 8, 8)
    mine, theirs = ours(x.contiguous(memory_format=torch.channels_last)), plain(x)
    assert torch.allclose(mine, theirs, atol=1e-6)
    for network, y in ((ours, mine), (plain, theirs)):
        y.square().sum().backward()
        assert network.weight.grad is not None
    assert torch.allclose(ours.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 300), (3, 300, 8), (1, 4, 512), (1, 5, 33)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_thin_images_are_taken_by_every_architecture(architecture, shape):
    check_trainable("teachers", architecture, 3, shape, 4, 2)


def test_the_convnet_halves_a_side_while_it_has_more_than_a_pixel():
    network = build_classifier("convnet", 2, (1, 8, 300), 4, seed=1)
    x = torch.randn(2, 1, 8, 300)
    network(x).sum().backward()
    assert network(x).shape == (2, 2)
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_of_one_are_refused_where_there_is_batch_norm(architecture):
    has_it = any(isinstance(m, torch.nn.BatchNorm2d) for m in build_classifier(architecture, 2, (1, 8, 8), 4).modules())
    if not has_it:
        check_trainable("teachers", architecture, 2, (1, 8, 8), 4, 1)
        return
    with pytest.raises(ConfigError, match=r"teachers\.batch_size=1: batch norm, which .* has, needs .* >= 2; raise it"):
        check_trainable("teachers", architecture, 2, (1, 8, 8), 4, 1)


def test_images_that_an_architecture_cannot_take_are_a_line_of_the_configuration(monkeypatch):
    monkeypatch.setitem(registry._MAKERS, "convnet", Narrow)
    with pytest.raises(ConfigError, match=r"student\.architecture='convnet': cannot take images of 300x8 pixels"):
        check_trainable("student", "convnet", 2, (1, 8, 300), 4, 8)


class Narrow(HeadedClassifier):
    """Takes square images alone."""

    def features(self, x):
        return x.flatten(1) @ torch.zeros(64, self.feature_size, device=x.device)
