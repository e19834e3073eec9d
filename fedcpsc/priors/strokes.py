# SPDX-License-Identifier: Apache-2.0
"""Strokes: random curves on a plain ground."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.grid import pixel_grid
from fedcpsc.priors.prior import Prior

__all__ = ["STROKES"]


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator, most: int = 4) -> Tensor:
    """One to `most` soft quadratic curves on a plain ground, of random thickness, colour and polarity.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    channels, height, width = image_shape
    y, x = pixel_grid(height, width)
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


STROKES = Prior(
    name="strokes",
    summary="one to four soft curves on a plain ground",
    when="for writing and line drawings",
    draw=_draw,
    on_device=True,
)
