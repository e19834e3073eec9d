# SPDX-License-Identifier: Apache-2.0
"""Noise with a power-law spectrum, as natural images have: amplitude falls as frequency^-a.

The statistics are textbook knowledge (Field 1987; Torralba & Oliva 2003), not a data set's. As a training prior:
Baradad et al. 2021 (arXiv 2106.05963), "spectrum".
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.prior import Prior

__all__ = ["SPECTRAL"]


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """`tanh(gain * (noise / std - bias))`, noise of amplitude `1 / (|f_y|^a + |f_x|^b)`, a and b drawn in [0.5, 3.5].

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1, 1).uniform_(low, high, generator=generator)

    f_y = torch.fft.fftfreq(height)[:, None].abs()  # [H, 1]
    f_x = torch.fft.rfftfreq(width)[None, :]  # [1, W // 2 + 1]
    fall = f_y ** uniform(0.5, 3.5) + f_x ** uniform(0.5, 3.5)  # [count, 1, H, W // 2 + 1]
    amplitude = torch.where(fall > 0, 1 / fall.clamp_min(1e-9), 0.0)  # no constant part: the bias is that
    white = torch.randn(count, channels, height, width, generator=generator)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    if noise[0].numel() > 1:  # one number has no spread
        noise = noise / noise.std((1, 2, 3), keepdim=True).clamp_min(1e-9)
    gain = uniform(0.3, 2.0)
    bias = 0.7 * torch.randn(count, 1, 1, 1, generator=generator)
    return muted(torch.tanh(gain * (noise - bias)), generator)


SPECTRAL = Prior(
    name="spectral",
    summary="noise whose amplitude falls with frequency, as that of photographs does",
    when="for textures and photographs",
    draw=_draw,
    on_device=True,
)
