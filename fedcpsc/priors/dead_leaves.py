# SPDX-License-Identifier: Apache-2.0
"""Dead leaves: shapes that hide each other.

Lee, Mumford & Huang 2001; as a training prior: Baradad et al. 2021 (arXiv 2106.05963).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.grid import pixel_grid
from fedcpsc.priors.prior import Prior

__all__ = ["DEAD_LEAVES"]


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator, leaves: int = 12) -> Tensor:
    """Discs and rotated rectangles of random size and colour, each hiding what lies under it.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape
    y, x = pixel_grid(height, width)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape, 1, 1).uniform_(low, high, generator=generator)

    canvas = uniform(-1, 1, channels).expand(count, channels, height, width).clone()
    for _ in range(leaves):
        dy, dx = y - uniform(-1, 1), x - uniform(-1, 1)  # [count, H, W]
        radius = 0.12 * uniform(0.02, 1) ** -0.5  # many small, few large
        angle = uniform(0, torch.pi)
        along = dx * angle.cos() + dy * angle.sin()
        across = dy * angle.cos() - dx * angle.sin()
        disc = dy**2 + dx**2 < radius**2
        box = (along.abs() < radius) & (across.abs() < radius * uniform(0.15, 1))
        leaf = torch.where(uniform(0, 1) < 0.5, disc, box)[:, None]  # [count, 1, H, W]
        canvas = torch.where(leaf, uniform(-1, 1, channels), canvas)
    return muted(canvas, generator)


DEAD_LEAVES = Prior(
    name="dead_leaves",
    summary="discs and rectangles of random size and colour, each hiding what lies under it",
    when="for pictures with sharp edges between flat regions",
    draw=_draw,
    on_device=True,
)
