# SPDX-License-Identifier: Apache-2.0
"""What noise is added to: one clipped gradient a unit, moved by at most the clipping norm by one unit more."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedcpsc.data.images import to_pixels
from fedcpsc.models.registry import build_classifier
from fedcpsc.training.unit_gradients import HeadGradients, NetworkGradients, clipped_sum, members_of

CPU = torch.device("cpu")
RECORDS, CLASSES = 40, 3

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


def records(count: int = RECORDS) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 12, 12), dtype=torch.uint8, generator=stream)
    labels = torch.randint(0, CLASSES, (count,), generator=stream)
    images[:5], labels[:5] = (
        images[0].clone(),
        labels[0].clone(),
    )  # the first person's are much alike, as they often are
    return images, labels


def whole_network(count: int = RECORDS) -> NetworkGradients:
    network = build_classifier("convnet_gn", CLASSES, (1, 12, 12), 4, seed=0)
    return NetworkGradients(network, *records(count), to_pixels, CPU)


def head(count: int = RECORDS) -> HeadGradients:
    network = build_classifier("scattering", CLASSES, (1, 12, 12), seed=0)
    images, labels = records(count)
    with torch.no_grad():
        return HeadGradients(network.head, network.features(to_pixels(images)), labels, CPU)


def units_of(size: int, count: int = RECORDS) -> list[np.ndarray]:
    return members_of(np.arange(count) // size)


def slow_sum(units: list[np.ndarray], norm: float, count: int = RECORDS) -> torch.Tensor:
    """The paper's algorithm: one unit at a time, by plain autograd in double precision."""
    network = build_classifier("convnet_gn", CLASSES, (1, 12, 12), 4, seed=0).double().train()
    images, labels = records(count)
    total = torch.zeros(sum(p.numel() for p in network.parameters()), dtype=torch.float64)
    for unit in units:
        loss = F.cross_entropy(network(to_pixels(images[unit]).double()), labels[unit])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
        total += gradient * min(1.0, norm / float(gradient.norm()))
    return total


@pytest.mark.parametrize("norm", [0.05, 1e3], ids=["clipped", "whole"])
@pytest.mark.parametrize("size", [1, 3, 40])
def test_the_sum_is_the_papers(size: int, norm: float) -> None:
    units = units_of(size)
    found, expected = clipped_sum(whole_network(), units, norm), slow_sum(units, norm)
    torch.testing.assert_close(found, expected, rtol=3e-4, atol=1e-5)


def test_a_unit_larger_than_a_chunk_is_one_unit() -> None:
    """Its gradient is gathered piece by piece; 600 records are three pieces."""
    units = units_of(600, 605)
    assert [len(unit) for unit in units] == [600, 5]
    found, expected = clipped_sum(whole_network(605), units, 0.05), slow_sum(units, 0.05, 605)
    torch.testing.assert_close(found, expected, rtol=3e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [0.05, 1e3], ids=["clipped", "whole"])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_the_closed_form_of_a_head_is_the_librarys_gradient(size: int, norm: float) -> None:
    closed = head()
    linear = nn.Linear(closed._features.shape[1], CLASSES)
    linear.load_state_dict({"weight": closed.parameters[0].detach(), "bias": closed.parameters[1].detach()})
    library = NetworkGradients(linear, closed._features, closed._labels, lambda x: x, CPU)
    units = units_of(size)
    mine, theirs = clipped_sum(closed, units, norm), clipped_sum(library, units, norm)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("source", [whole_network, head])
def test_a_person_moves_the_sum_by_at_most_the_clipping_norm_and_uses_it(source) -> None:
    """Deterministic. Persons have five records each; every one of them is left out in turn."""
    gradients, persons, norm = source(), units_of(5), 0.05
    everybody = clipped_sum(gradients, persons, norm)
    for left_out in range(len(persons)):
        others = [unit for number, unit in enumerate(persons) if number != left_out]
        moved = float((everybody - clipped_sum(gradients, others, norm)).norm())
        assert 0.99 * norm < moved <= norm


@pytest.mark.parametrize("source", [whole_network, head])
def test_clipping_record_by_record_would_fail_it(source) -> None:
    gradients, norm = source(), 0.05
    everybody = clipped_sum(gradients, units_of(1), norm)
    without_five = clipped_sum(gradients, units_of(1)[5:], norm)
    assert float((everybody - without_five).norm()) > 4.5 * norm


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_gradient_that_is_no_number_counts_as_zero(bad: float) -> None:
    gradients, norm = head(), 0.05
    before = clipped_sum(gradients, units_of(1)[1:], norm)
    gradients._features[0] = bad
    moved = (clipped_sum(gradients, units_of(1), norm) - before).norm()
    assert float(moved) <= norm
    assert torch.isfinite(moved)


def test_an_empty_batch_sums_to_zeros() -> None:
    assert not clipped_sum(head(), [], 1.0).any()
    assert members_of(np.array([], np.int64)) == []


def test_members_are_the_places_of_each_unit() -> None:
    assert [list(unit) for unit in members_of(np.array([2, 0, 2, 1, 0]))] == [[1, 4], [3], [0, 2]]
