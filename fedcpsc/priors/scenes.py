# SPDX-License-Identifier: Apache-2.0
"""Scenes: something with parts, before a ground, in light that falls from one side.

What is known of pictures without looking at any: things hide what lies behind them and stand near the middle, what they
are made of has a texture whose spectrum falls with frequency (Field 1987), many are symmetric.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcpsc.priors.colour import muted
from fedcpsc.priors.prior import Prior

__all__ = ["SCENES"]

_PARTS = 6


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """A ground, half of them with a horizon; before it a body and up to six parts, four of ten in mirror pairs.

    Body and parts are superellipses with wavering outlines; they and the grounds are shaded and textured.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    height, width = image_shape[1:]
    y = ((torch.arange(height) + 0.5) / height * 2 - 1)[:, None].expand(1, 1, height, width)
    x = ((torch.arange(width) + 0.5) / width * 2 - 1)[None, :].expand(1, 1, height, width)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1, 1).uniform_(low, high, generator=generator)

    def shape(x: Tensor, centre: tuple[Tensor, Tensor], size: Tensor, thinnest: float) -> Tensor:
        """How far each pixel belongs to it, in [0, 1]."""
        dx, dy, angle = x - centre[0], y - centre[1], uniform(0, torch.pi)
        along = (dx * angle.cos() + dy * angle.sin()) / size
        across = (dy * angle.cos() - dx * angle.sin()) / (size * uniform(thinnest, 1))
        power = torch.where(uniform(0, 1) < 0.3, 8.0, 2.0)  # a box with round corners, or an ellipse
        distance = (along.abs() ** power + across.abs() ** power) ** (1 / power)
        outline = torch.randn(count, 1, 4, 4, generator=generator)
        outline = torch.nn.functional.interpolate(outline, size=(height, width), mode="bilinear", align_corners=False)
        return torch.sigmoid((1 - distance - 0.25 * outline) * size * height / 1.5)

    def surface() -> Tensor:
        return _surface(count, image_shape, x, y, generator)

    canvas = surface()
    horizon = y + 0.15 * uniform(-1, 1) * x > uniform(-0.6, 0.8)
    canvas = torch.where((uniform(0, 1) < 0.5) & horizon, surface(), canvas)
    middle, size = (uniform(-0.3, 0.3), uniform(-0.3, 0.3)), uniform(0.35, 0.75)
    mirrored = torch.where(uniform(0, 1) < 0.4, middle[0] + (x - middle[0]).abs(), x)
    own = surface()
    body = shape(x, middle, size, 0.3)
    canvas = canvas * (1 - body) + own * body
    for _ in range(_PARTS):
        angle, away = uniform(0, 2 * torch.pi), size * uniform(0.5, 1.3)
        centre = middle[0] + away * angle.cos(), middle[1] + away * angle.sin()
        part = shape(mirrored, centre, size * uniform(0.15, 0.7), 0.12) * (uniform(0, 1) < 0.5)
        canvas = canvas * (1 - part) + torch.where(uniform(0, 1) < 0.5, own, surface()) * part
    return muted(canvas.clamp(-1, 1), generator, most=1.0)


def _surface(count: int, image_shape: tuple[int, int, int], x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """One colour, lighter towards one side, with noise of a falling spectrum; [count, C, H, W]."""
    channels, height, width = image_shape

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(count, channels, 1, 1).uniform_(low, high, generator=generator)

    angle = uniform(0, 2 * torch.pi)
    light = uniform(0, 0.6) * (x * angle.cos() + y * angle.sin())
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None, :] ** 2).sqrt()
    amplitude = torch.where(frequency > 0, frequency.clamp_min(1e-9) ** -uniform(0.8, 2.5), 0.0)
    white = torch.randn(count, 1, height, width, generator=generator)
    texture = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    if height * width > 1:  # one pixel has no spread
        texture = texture / texture.std((1, 2, 3), keepdim=True).clamp_min(1e-9)
    lit: Tensor = uniform(-1, 1, channels) + light + uniform(0.02, 0.35) * texture
    return lit


SCENES = Prior(
    name="scenes",
    summary="a body with parts before a ground, shaded, textured and often symmetric",
    when="for photographs of things",
    draw=_draw,
    on_device=True,
)
