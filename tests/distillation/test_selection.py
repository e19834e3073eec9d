# SPDX-License-Identifier: Apache-2.0
"""Candidates are chosen evenly over the committee's guesses, the least sure first."""

import torch
from torch import nn

from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.selection import select


class ByBrightness(nn.Module):
    """Three classes by mean pixel; the nearer to a class's centre, the surer."""

    def forward_with_features(self, x):
        level = x.flatten(1).mean(1, keepdim=True)
        return -20 * (level - torch.tensor([[-0.7, 0.0, 0.7]])) ** 2, level


def pool(levels):
    return to_uint8(torch.tensor(levels)[:, None, None, None].expand(-1, 1, 4, 4).clone())


def test_rare_guesses_are_asked_as_often_as_common_ones():
    levels = [-0.7 + 0.001 * i for i in range(50)] + [0.0, 0.05, 0.1] + [0.7, 0.72]
    chosen = select(pool(levels), [ByBrightness()], 6, torch.device("cpu")).tolist()
    assert chosen == sorted(chosen)
    assert sum(i < 50 for i in chosen) == 2
    assert sum(50 <= i < 53 for i in chosen) == 2
    assert sum(i >= 53 for i in chosen) == 2


def test_within_a_guess_the_least_sure_goes_first():
    chosen = select(pool([0.0, 0.3, 0.1, 0.2]), [ByBrightness()], 2, torch.device("cpu")).tolist()
    assert chosen == [1, 3]  # nearest to the border with the lighter class


def test_all_may_be_chosen():
    assert select(pool([0.0, 0.5, -0.5]), [ByBrightness()], 3, torch.device("cpu")).tolist() == [0, 1, 2]
