# SPDX-License-Identifier: Apache-2.0
"""Copies for passes without training give what the network gives, and leave it alone."""

import copy

import pytest
import torch
from torch import nn

from fedcpsc.large_images import images_a_pass
from fedcpsc.models.adapted import Adapted
from fedcpsc.models.folded import folded, for_inference
from fedcpsc.models.registry import ARCHITECTURES, build_classifier

OTHERS = [name for name in ARCHITECTURES if name not in ("resnet18", "resnet34")]  # resnet18_narrow has their blocks


def trained(architecture, shape=(3, 16, 16)):
    """A network whose norms have statistics, weights and shifts far from those of an untrained one."""
    network = build_classifier(architecture, 7, shape, width=8, seed=1)
    random = torch.Generator().manual_seed(2)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.bias.data):
                tensor.copy_(torch.randn(len(tensor), generator=random))
            for tensor in (norm.running_var, norm.weight.data):
                tensor.copy_(0.5 + torch.rand(len(tensor), generator=random))
    return network


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("architecture", OTHERS)
def test_a_folded_network_gives_the_same_outputs_but_for_rounding(architecture):
    network = trained(architecture)
    x = torch.rand(5, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        wanted = network.eval().forward_with_features(x)
        found = folded(network).forward_with_features(x)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("architecture", "left"),
    # of a pre-activation block only the norm between its convolutions follows one: 6 blocks, and the last norm
    [("convnet", 0), ("vgg11", 0), ("resnet18_narrow", 0), ("wrn16_1", 7)],
)
def test_every_norm_that_follows_a_convolution_is_folded(architecture, left):
    network = trained(architecture)
    assert norms(folded(network)) == left < norms(network)


def test_the_network_itself_stays_as_it_was():
    network = trained("convnet").train()
    before = copy.deepcopy(network.state_dict())
    with for_inference([network]) as (passing,), torch.no_grad():
        passing(torch.zeros(2, 3, 16, 16))
        assert not passing.training
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_of_others_is_passed_through_itself_in_evaluation_mode():
    foreign = Adapted(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 7)), 7, (3, 4, 4)
    )
    with for_inference([foreign.train()]) as (passing,):
        assert passing is foreign
        assert not foreign.training
    assert foreign.training


@pytest.mark.parametrize("architecture", OTHERS)
def test_no_output_depends_on_how_many_images_pass_together(architecture):
    network, x = (
        trained(architecture, (1, 8, 8)).eval(),
        torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(3)),
    )
    with torch.no_grad():
        together, parts = network(x), [network(part) for part in x.split(images_a_pass((1, 8, 8)))]
    assert torch.equal(torch.cat(parts), together)
