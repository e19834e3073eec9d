# SPDX-License-Identifier: Apache-2.0
"""The loss of outliers: its formula, its minimum, and that it leaves the classes alone."""

import math

import numpy as np
import pytest
import torch

from fedcpsc.losses.outlier_exposure import outlier_exposure


def test_it_is_the_cross_entropy_of_none_against_any_of_the_classes():
    logits = np.random.default_rng(0).normal(size=(5, 4))
    expected = 0.0
    for row in logits:
        none = math.exp(row[3]) / sum(math.exp(x) for x in row)
        expected -= 0.8 * math.log(none) + 0.2 * math.log(1 - none)
    assert outlier_exposure(torch.tensor(logits), 0.8).item() == pytest.approx(expected / 5)


@pytest.mark.parametrize("none", [0.6, 0.9, 1.0])
def test_it_is_least_where_none_has_the_wanted_probability_however_the_classes_share_the_rest(none):
    rest = 1 - none
    least = -none * math.log(none) - (rest * math.log(rest) if rest else 0.0)
    for shared in ([0.5, 0.5], [0.9, 0.1]):
        p = torch.tensor([[rest * shared[0], rest * shared[1], none]], dtype=torch.float64).clamp_min(1e-30)
        assert outlier_exposure(p.log(), none).item() == pytest.approx(least, abs=1e-9)
        less_so = torch.tensor([[0.0, 0.0, -0.3]]) if none < 1 else torch.tensor([[99.0, 0.0, 0.0]])
        assert outlier_exposure(p.log() + less_so, none).item() > least
    apart = torch.tensor([[0.0, 0.0, 200.0]], dtype=torch.float64)  # far beyond what float32 probabilities can hold
    assert math.isfinite(outlier_exposure(apart, none).item())


def test_its_gradient_moves_no_class_against_another():
    logits = torch.tensor([[2.0, 0.5, -1.0, 0.3]], requires_grad=True)
    outlier_exposure(logits, 0.9).backward()
    assert logits.grad is not None
    among = torch.softmax(logits.detach()[0, :3], 0)
    torch.testing.assert_close(logits.grad[0, :3] / logits.grad[0, :3].sum(), among)  # a common factor for all
    assert logits.grad[0, 3].item() == pytest.approx(-logits.grad[0, :3].sum().item())
