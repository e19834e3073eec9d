"""What a generator is trained towards when the teachers only answer: diverse, balanced, plausibly normalised images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
        mean, std: of pixels in [-1, 1].
    """
    return (pixels.mean() - mean) ** 2 + (pixels.std() - std) ** 2


def batch_norm_prior(inputs: list[Tensor], running_means: list[Tensor], running_variances: list[Tensor]) -> Tensor:
    """`L_BN = sum_l ||var_l(x) - runvar_l||_2 + ||mean_l(x) - runmean_l||_2`: white-box only.

    Args:
        inputs: what enters each BatchNorm layer, [B, C_l, ...].
        running_means, running_variances: the layers' statistics, [C_l].

    Source: DeepInversion (Yin et al. 2020, arXiv 1912.08795, eq. 4).
    """
    total = inputs[0].new_zeros(())
    for x, running_mean, running_var in zip(inputs, running_means, running_variances, strict=True):
        dims = [d for d in range(x.ndim) if d != 1]
        var, mean = torch.var_mean(x, dim=dims, correction=0)
        total = total + (var - running_var).norm() + (mean - running_mean).norm()
    return total
