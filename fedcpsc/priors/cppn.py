# SPDX-License-Identifier: Apache-2.0
"""Compositional pattern-producing networks: small random ones that map a pixel's place to its colour.

Stanley 2007 (doi 10.1007/s10710-007-9028-8). As a training prior, a near relation: the random image programs of Baradad
et al. 2022 (arXiv 2211.16412).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.prior import Prior

__all__ = ["CPPN"]

_WIDTH, _LAYERS = 12, 3
_CHUNK = 1000  # images whose activations lie in memory together


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """`tanh(network(x, y, r))`, for each image a network of its own: three layers of twelve units.

    A unit is a sine, a tanh, a bell or an absolute value. Its first weights have a scale drawn in [1, 6]: from blots to
    fine ripples.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    parts = [_drawn(min(_CHUNK, count - start), image_shape, generator) for start in range(0, count, _CHUNK)]
    return torch.cat(parts)


def _drawn(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    channels, height, width = image_shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(low, high, generator=generator)

    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height * 2 - 1, (torch.arange(width) + 0.5) / width * 2 - 1, indexing="ij"
    )
    centre = 0.6 * normal(2, 1)
    dx, dy = x.reshape(1, -1) - centre[:, 0], y.reshape(1, -1) - centre[:, 1]  # [count, H W]
    hidden = torch.stack([dx, dy, (dx**2 + dy**2).sqrt(), torch.ones_like(dx)], -1)  # [count, H W, 4]
    weights = normal(4, _WIDTH) * uniform(1, 6)
    for _ in range(_LAYERS):
        drive = hidden @ weights
        kind = torch.randint(4, (count, 1, _WIDTH), generator=generator)
        hidden = torch.where(kind == 0, drive.sin(), drive.tanh())
        hidden = torch.where(kind == 2, (-drive.square()).exp(), hidden)
        hidden = torch.where(kind == 3, drive.abs().clamp(max=3) - 1, hidden)
        weights = normal(_WIDTH, _WIDTH) * 1.8 / _WIDTH**0.5
    colours = hidden @ normal(_WIDTH, channels) / _WIDTH**0.5 * uniform(0.5, 3) + 0.5 * normal(1, channels)
    return muted(colours.tanh().transpose(1, 2).reshape(count, channels, height, width), generator)


CPPN = Prior(
    name="cppn",
    summary="small random networks that map a pixel's place to its colour, from blots to fine ripples",
    when="for pictures of smooth bounded regions",
    draw=_draw,
    on_device=True,
)
