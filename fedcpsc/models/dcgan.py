# SPDX-License-Identifier: Apache-2.0
"""The conditional generator for 64x64 images (Tiny-ImageNet): DCGAN form with categorical feature embedding.

Source: CPSC-DFKD, arXiv 2510.03375; DCGAN: Radford et al. 2015, arXiv 1511.06434.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.models.generator import ConditionalGenerator, ConditionalNorm
from fedcpsc.models.seeded import seeded

__all__ = ["DcganGenerator", "build_generator"]

_WIDTHS = (8, 4, 2, 1, 1)  # times ngf, before and after each of the four doublings
_LARGE = 64


class DcganGenerator(nn.Module):
    """Linear to 8*width x H/16 x W/16, CFE; four doublings (transposed conv, CFE, LeakyReLU 0.2); conv, tanh.

    Args:
        latent: length of z.
        classes: K.
        image_shape: (C, H, W); sides that are no multiple of 16 are cut from the next.
        width: ngf of the paper (64 there).
    """

    def __init__(self, latent: int, classes: int, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        self.start = (math.ceil(height / 16), math.ceil(width_px / 16))
        self.size = (height, width_px)
        widths = [factor * width for factor in _WIDTHS]
        self.project = nn.Linear(latent, widths[0] * self.start[0] * self.start[1])
        self.norm0 = ConditionalNorm(widths[0], classes)
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ConditionalNorm(after, classes) for after in widths[1:])
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z [B, latent] standard normal, y int64 [B] in [0, K) -> pixels [B, C, H, W] in [-1, 1]."""
        x = self.project(z).view(len(z), -1, *self.start)
        x = self.norm0(x, y)
        for doubling, norm in zip(self.doublings, self.norms, strict=True):
            x = F.leaky_relu(norm(doubling(x), y), 0.2)
        return torch.tanh(self.last(x))[:, :, : self.size[0], : self.size[1]]


def build_generator(
    latent: int,
    classes: int,
    image_shape: tuple[int, int, int],
    width: int,
    *,
    seed: int,
    reference_order: bool = False,
    small_form: bool = False,
) -> ConditionalGenerator | DcganGenerator:
    """The seed's generator for images of this size: DCGAN form where both sides have at least 64 pixels.

    Args:
        latent, classes, image_shape, width: arguments of the two generators.
        seed: seed of the initialisation; torch's global generators are left alone.
        reference_order: whether norm and tanh stand as in the authors' code, see `ConditionalGenerator`; the DCGAN form
            has no norm beside its tanh.
        small_form: whether images of any size get the form that is meant for those below 64 pixels.
    """
    with seeded(seed):
        if min(image_shape[1:]) >= _LARGE and not small_form:
            return DcganGenerator(latent, classes, image_shape, width)
        return ConditionalGenerator(latent, classes, image_shape, width, reference_order=reference_order)
