# SPDX-License-Identifier: Apache-2.0
"""Class biases make the mean prediction the stated shares, are found from few images, and touch nothing else."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from fedcpsc.models.adapted import Adapted
from fedcpsc.models.class_biases import class_biases_for, head_biases
from fedcpsc.models.frozen_body import FrozenBody
from fedcpsc.models.registry import build_classifier

LEANING = np.linspace(-3, 3, 5)


def leaning_logits(count, shares, seed=0):
    """(logits, classes): a classifier that knows much and leans towards the last classes."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(5, count, p=shares)
    return 4 * np.eye(5)[classes] + rng.normal(0, 1.5, (count, 5)) + LEANING, classes


@pytest.mark.parametrize("shares", [np.full(5, 0.2), np.array([0.4, 0.3, 0.15, 0.1, 0.05])])
def test_the_mean_prediction_becomes_the_shares_and_the_leaning_is_undone(shares):
    logits, classes = leaning_logits(4000, shares)
    biases = class_biases_for(logits, shares)
    assert np.abs(softmax(logits + biases, axis=1).mean(0) - shares).max() < 2e-3
    assert abs(biases.mean()) < 1e-9
    before, after = ((logits + b).argmax(1) == classes for b in (0, biases))
    assert before.mean() < 0.75
    assert after.mean() > 0.9


def test_few_images_move_the_biases_less_and_in_the_right_direction():
    shares = np.full(5, 0.2)
    few, many = (class_biases_for(leaning_logits(count, shares)[0], shares) for count in (10, 4000))
    assert np.linalg.norm(few) < np.linalg.norm(many)
    assert np.corrcoef(few, -LEANING)[0, 1] > 0.9


def test_a_constant_added_to_all_logits_of_an_image_changes_nothing():
    logits, _ = leaning_logits(50, np.full(5, 0.2))
    moved = logits + np.random.default_rng(1).normal(0, 9, (50, 1))
    assert np.allclose(class_biases_for(logits, np.full(5, 0.2)), class_biases_for(moved, np.full(5, 0.2)), atol=1e-4)


@pytest.mark.parametrize("architecture", ["convnet", "lenet5", "resnet18"])
def test_the_biases_of_a_network_of_this_project_are_its_heads(architecture):
    network = build_classifier(architecture, 5, (1, 16, 16), 4).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    biases = head_biases(network)
    assert biases is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    x = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        logits = network(x)
        biases.add_(torch.arange(5.0))
        assert torch.allclose(network(x), logits + torch.arange(5.0), atol=1e-5)


def test_the_head_is_found_behind_a_preparation_and_in_a_frozen_network():
    for network in (
        Adapted(build_classifier("convnet", 5, (1, 8, 8), 4), 5, (1, 8, 8), normalisation=((0.3,), (0.2,))),
        Adapted(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), 5, (1, 8, 8), head="1"),
    ):
        assert head_biases(network.eval()) is not None
    fc = nn.Linear(64, 5)
    frozen = FrozenBody(Adapted(nn.Sequential(nn.Flatten(), fc), 5, (1, 8, 8), head="1"), fc)
    assert head_biases(frozen.eval()) is not None


def test_a_network_whose_logits_are_more_than_a_linear_layer_has_none_to_shift():
    halved = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh())
    without = nn.Sequential(nn.Flatten(), nn.Linear(16, 5, bias=False))
    for network, head in ((halved, "1"), (without, "1"), (halved, None)):
        assert head_biases(Adapted(network, 5, (1, 4, 4), head=head).eval()) is None
