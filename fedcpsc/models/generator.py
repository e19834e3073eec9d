# SPDX-License-Identifier: Apache-2.0
"""Conditional generator with categorical feature embedding (CFE): (z, y) -> image.

Source: CPSC-DFKD, arXiv 2510.03375. CFE norm is a batch norm without affine part, followed by a scale and a shift
looked up by class (initialised to 1 and 0), eps 1e-3: it keeps the categories' feature distributions apart.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConditionalGenerator", "ConditionalNorm"]


class ConditionalNorm(nn.Module):
    """CFE norm over [B, C, H, W], conditioned on y [B]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-3, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, C, H, W], [B] -> [B, C, H, W]."""
        normed: Tensor = self.norm(x)
        scale: Tensor = self.scale(y)[:, :, None, None]
        shift: Tensor = self.shift(y)[:, :, None, None]
        return normed * scale + shift


class ConditionalGenerator(nn.Module):
    """Linear to 2*width x H/4 x W/4, twice (upsample x2, conv, CFE, LeakyReLU 0.2), conv, CFE, tanh.

    The seed applies CFE norm after tanh; here it stands before, so that pixels stay within [-1, 1] for any class
    embedding. `reference_order=True` restores the seed's order.

    Args:
        latent: length of z.
        classes: K.
        image_shape: (C, H, W), any H, W >= 4.
        width: ngf of the paper (64 there).
        reference_order: CFE norm after tanh, as in the seed.
    """

    def __init__(
        self, latent: int, classes: int, image_shape: tuple[int, int, int], width: int, *, reference_order: bool = False
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        self.start = (math.ceil(height / 4), math.ceil(width_px / 4))
        self.size = (height, width_px)
        self.image_shape = image_shape
        self.width = width
        self.reference_order = reference_order
        self.project = nn.Linear(latent, 2 * width * self.start[0] * self.start[1])
        self.norm0 = ConditionalNorm(2 * width, classes)
        self.conv1 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm1 = ConditionalNorm(2 * width, classes)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.norm2 = ConditionalNorm(width, classes)
        self.conv3 = nn.Conv2d(width, channels, 3, padding=1)
        self.norm3 = ConditionalNorm(channels, classes)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z [B, latent] standard normal, y int64 [B] in [0, K) -> pixels [B, C, H, W] in [-1, 1]."""
        x = self.project(z).view(-1, 2 * self.width, *self.start)
        x = self.norm0(x, y)
        x = F.interpolate(x, scale_factor=2.0)
        x = F.leaky_relu(self.norm1(self.conv1(x), y), 0.2)
        x = F.interpolate(x, size=self.size)
        x = F.leaky_relu(self.norm2(self.conv2(x), y), 0.2)
        x = self.conv3(x)
        if self.reference_order:
            return self.norm3(torch.tanh(x), y)  # type: ignore[no-any-return]
        return torch.tanh(self.norm3(x, y))
