# SPDX-License-Identifier: Apache-2.0
"""Random views of an image for contrastive pre-training: another crop, another light, other colours.

After SimCLR (Chen et al. 2020, arXiv 2002.05709, appendix A), but for the mirror, which not every domain allows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.data.augment import random_flip

__all__ = ["random_view"]

_AREA = (0.25, 1.0)  # share of the image that a crop shows
_RATIO = 4 / 3  # most of a crop's sides to each other
_LIGHT = 0.4  # most that pixels in [-1, 1] grow lighter or darker by
_CONTRAST = 0.5  # most that differences from the mean are stretched or flattened by
_TINT = 0.2  # most that a channel grows lighter or darker by
_GREY = 0.2  # share of colour images that lose their colours


def random_view(x: Tensor, generator: torch.Generator, *, flip: bool = False) -> Tensor:
    """Another view of each image: [B, C, H, W] in [-1, 1] -> the same.

    Args:
        x: images.
        generator: random generator of the images' device.
        flip: whether half of them are mirrored.
    """
    channels = x.shape[1]
    view = _cropped(x, generator)
    if flip:
        view = random_flip(view, generator)
    if channels > 1:
        grey = _uniform(x, 1, 0.0, 1.0, generator) < _GREY
        view = torch.where(grey, view.mean(1, keepdim=True), view) + _uniform(x, channels, -_TINT, _TINT, generator)
    mean = view.mean((1, 2, 3), keepdim=True)
    stretch = _uniform(x, 1, 1 - _CONTRAST, 1 + _CONTRAST, generator)
    return ((view - mean) * stretch + mean + _uniform(x, 1, -_LIGHT, _LIGHT, generator)).clamp(-1, 1)


def _cropped(x: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle of each image, of random area, shape and place, stretched to the image's size."""
    side = _uniform(x, 1, *_AREA, generator).flatten().sqrt()
    ratio = (_uniform(x, 1, -1.0, 1.0, generator).flatten() * torch.tensor(_RATIO).log() / 2).exp()
    sides = torch.stack([side * ratio, side / ratio], 1).clamp(max=1.0)  # of the image's, across and down: [B, 2]
    place = (2 * torch.rand(sides.shape, generator=generator, device=x.device) - 1) * (1 - sides)
    where = torch.cat([torch.diag_embed(sides), place[:, :, None]], 2)  # [B, 2, 3]
    grid = F.affine_grid(where, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _uniform(x: Tensor, channels: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(len(x), channels, 1, 1, generator=generator, device=x.device)
