# SPDX-License-Identifier: Apache-2.0
"""Photographs: crops of two public ones, turned, recoloured and mixed.

One photograph, cut often and varied strongly, is enough real data to distil a classifier of others with (Asano & Saeed,
"The Augmented Image Prior", ICLR 2023, arXiv 2112.00725). Theirs are large pictures of busy scenes, mixed by CutMix in
training; these are the two that scikit-learn ships, mixed here, because a query is one image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.priors.colour import jittered
from fedcpsc.priors.photograph_crops import photograph_crops
from fedcpsc.priors.prior import Prior

__all__ = ["PHOTOGRAPHS"]

_TURN = math.radians(35)  # as Asano & Saeed
_TOGETHER = 2**22  # values of the windows that are kept together, 16 MB


def _draw(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Crops from a twentieth of a photograph's side to all of it, turned by up to 35 degrees, half of them mirrored.

    Each is the one with more contrast of two: much of both photographs is sky and dark ground. Then contrast,
    brightness, saturation and hue vary. Of three, one is blended with another, one has a box of another.

    Returns:
        float32 [count, C, H, W] in [-1, 1]. With C other than 3 they are grey.
    """
    step = max(1, _TOGETHER // math.prod(_window(image_shape)))
    crops = [_turned(min(step, count - first), image_shape, generator) for first in range(0, count, step)]
    return _mixed(jittered(torch.cat(crops), generator), generator) if count else torch.zeros(0, *image_shape)


def _window(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape of what must be cut so that an image, turned, lies within."""
    channels, height, width = image_shape
    cos, sin = math.cos(_TURN), math.sin(_TURN)
    return channels, math.ceil(height * cos + width * sin), math.ceil(width * cos + height * sin)


def _turned(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Crops [count, C, H, W] at any angle up to `_TURN`, and stretched a little; half of them mirrored."""
    shape = _window(image_shape)
    windows = photograph_crops(2 * count, shape, generator).view(2, count, *shape)
    busier = windows[0].std((1, 2, 3), correction=0) >= windows[1].std((1, 2, 3), correction=0)
    windows = torch.where(busier[:, None, None, None], windows[0], windows[1])

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(low, high, generator=generator)

    (height, width), angle = image_shape[1:], uniform(-_TURN, _TURN)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    # pixels from the middle; never more apart than those of the window, which would alias
    y = (torch.arange(height) - (height - 1) / 2)[None, :, None] * uniform(0.7, 1)
    x = (torch.arange(width) - (width - 1) / 2)[None, None, :] * uniform(0.7, 1) * mirror
    across, down = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    grid = torch.stack([across * (2 / shape[2]), down * (2 / shape[1])], dim=3)  # [count, H, W, 2] in [-1, 1]
    return F.grid_sample(windows, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the images as they are, a third blended with others (mixup), a third with a box of others (CutMix)."""
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(low, high, generator=generator)

    others = images[torch.randperm(count, generator=generator)]
    kind, blend = uniform(0, 3), uniform(0.2, 0.8)
    y, x = (torch.arange(height)[:, None] + 0.5) / height, (torch.arange(width) + 0.5) / width
    inside = (y - uniform(0, 1)).abs() < uniform(0.1, 0.5)
    inside = inside & ((x - uniform(0, 1)).abs() < uniform(0.1, 0.5))  # [count, H, W]
    share = torch.where(kind < 1, 0.0, torch.where(kind < 2, blend, inside.float()))[:, None]
    return (1 - share) * images + share * others


PHOTOGRAPHS = Prior(
    name="photographs",
    summary="crops of two public photographs, turned, recoloured and mixed; not free of all data",
    when="for photographs, where the two that scikit-learn ships may be used",
    real_data="crops of the two photographs that scikit-learn ships (a temple, and a flower; CC BY)",
    draw=_draw,
)
