# SPDX-License-Identifier: Apache-2.0
"""Smooth noise: sums of upsampled Gaussian noise at several scales, pushed through tanh."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.prior import Prior

__all__ = ["SMOOTH"]


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """`tanh(gain * (sum of upsampled noise at 2, 4, 8 and full resolution - bias))`, gain and bias random per image.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape
    total = torch.zeros(count, channels, height, width)
    for cells in (2, 4, 8, min(height, width)):
        if cells > min(height, width):
            continue
        noise = torch.randn(count, channels, cells, cells, generator=generator)
        amplitude = torch.rand(count, 1, 1, 1, generator=generator)
        if cells < min(height, width):
            noise = F.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)
        else:
            noise = 0.3 * F.interpolate(noise, size=(height, width))
        total += amplitude * noise
    gain = torch.empty(count, 1, 1, 1).uniform_(0.5, 4.0, generator=generator)
    bias = 0.7 * torch.randn(count, 1, 1, 1, generator=generator)
    return muted(torch.tanh(gain * (total - bias)), generator)


SMOOTH = Prior(
    name="smooth",
    summary="sum of blurred noise at several scales",
    when="for any domain, and where drawing must be cheap",
    draw=_draw,
    on_device=True,
)
