"""Procedural images with edges: dead leaves (occluding shapes) and strokes (random curves).

Neither looks at any data. Dead leaves: Lee, Mumford & Huang 2001; as a training prior: Baradad et al. 2021
(arXiv 2106.05963).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted

__all__ = ["dead_leaves", "strokes"]


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixel centres in [-1, 1]: y [H, 1], x [1, W]."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y[:, None], x[None, :]


def dead_leaves(count: int, image_shape: tuple[int, int, int], generator: torch.Generator, leaves: int = 12) -> Tensor:
    """Discs and rotated rectangles of random size and colour, each hiding what lies under it.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape
    y, x = _grid(height, width)

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


def strokes(count: int, image_shape: tuple[int, int, int], generator: torch.Generator, most: int = 4) -> Tensor:
    """One to `most` soft quadratic curves on a plain ground, of random thickness, colour and polarity.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape
    y, x = _grid(height, width)
    t = torch.linspace(0, 1, 24)[:, None]
    bezier = torch.cat([(1 - t) ** 2, 2 * t * (1 - t), t**2], dim=1)  # [24, 3]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    ground = uniform(-1, 1, channels, 1, 1)
    canvas = ground.expand(count, channels, height, width).clone()
    ink = uniform(-1, 1, channels, 1, 1)
    thickness = uniform(0.04, 0.18, 1, 1)
    shown = torch.randint(1, most + 1, (count,), generator=generator)
    for stroke in range(most):
        points = uniform(-0.9, 0.9, 3, 2)
        path = bezier @ points  # [count, 24, 2]
        away = (y[None, None] - path[:, :, 0, None, None]) ** 2 + (x[None, None] - path[:, :, 1, None, None]) ** 2
        distance = away.amin(1).sqrt()  # [count, H, W]
        cover = torch.sigmoid((thickness - distance) * height)[:, None]
        cover = cover * (shown > stroke).float()[:, None, None, None]
        canvas = canvas * (1 - cover) + ink * cover
    return muted(canvas, generator)
