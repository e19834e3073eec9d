# SPDX-License-Identifier: Apache-2.0
"""Fractals: attractors of random iterated function systems, drawn by the chaos game.

As a training prior: Kataoka et al. 2020 (arXiv 2101.08515), "pre-training without natural images".
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.prior import Prior

__all__ = ["FRACTALS"]

_WALKERS, _STEPS, _BURN_IN = 96, 32, 8
_MAPS = 4


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """One attractor an image, its density as tone between two random colours.

    Two to four affine maps, each a rotation, a contraction with singular values in [0.2, 0.8], a rotation and a shift.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    def rotations() -> Tensor:
        angle = uniform(0, 2 * torch.pi, _MAPS)
        rows = [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)]
        return torch.stack(rows, -2)  # [count, maps, 2, 2]

    linear = rotations() @ (uniform(0.2, 0.8, _MAPS, 2, 1) * rotations())
    shift = uniform(-1, 1, _MAPS, 2)
    maps = torch.randint(2, _MAPS + 1, (count, 1), generator=generator)
    points = uniform(-1, 1, _WALKERS, 2)
    seen = []
    image = torch.arange(count)[:, None]
    for step in range(_STEPS):
        which = (uniform(0, 1, _WALKERS) * maps).long()  # [count, walkers]
        points = (linear[image, which] @ points[..., None])[..., 0] + shift[image, which]
        if step >= _BURN_IN:
            seen.append(points)
    path = torch.cat(seen, 1)  # [count, points, 2]
    low, high = path.amin(1, keepdim=True), path.amax(1, keepdim=True)
    margin = 0.1
    place = margin + (1 - 2 * margin) * (path - low) / (high - low).clamp_min(1e-6)
    cell = (place[..., 0] * height).long().clamp(max=height - 1) * width + (place[..., 1] * width).long().clamp(
        max=width - 1
    )
    density = torch.zeros(count, height * width).scatter_add_(1, cell, torch.ones_like(place[..., 0]))
    tone = (density.log1p() / density.log1p().amax(1, keepdim=True)).reshape(count, 1, height, width)
    ground, ink = uniform(-1, 1, channels, 1, 1), uniform(-1, 1, channels, 1, 1)
    return muted(ground + (ink - ground) * tone, generator)


FRACTALS = Prior(
    name="fractals",
    summary="attractors of random iterated function systems, as tone between two colours",
    when="for pictures of branching or scattered structure",
    draw=_draw,
    on_device=True,
)
