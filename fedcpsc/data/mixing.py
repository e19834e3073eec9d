# SPDX-License-Identifier: Apache-2.0
"""Images blended with others of their batch, and their targets likewise: mixup and cutmix.

Sources: Zhang et al. 2018 (arXiv 1710.09412); Yun et al. 2019 (arXiv 1905.04899). As there, one share is drawn for a
whole batch, and each image is blended with the one that a random order of the batch puts in its place. Unlike there, a
rectangle's sides are rounded to the nearest pixel, not down to an even number: images of 8 pixels would feel it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedcpsc.transfers import uploaded

__all__ = ["Blend", "Mixing", "blended", "draw_blend"]


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed; with both alphas positive each batch is mixed in one of the two ways, by lot.

    Attributes:
        mixup: alpha of mixup, >= 0; 0 for none.
        cutmix: alpha of cutmix, >= 0; 0 for none.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, eq=False)
class Blend:
    """How one batch is mixed.

    Attributes:
        order: number of the image that each image is blended with, int64 [B].
        own: share of an image's own target in its new one, in [0, 1].
        box: rows and columns (top, bottom, left, right) that come from the other image; None where every pixel is
            blended.
    """

    order: Tensor
    own: float
    box: tuple[int, int, int, int] | None = None


def draw_blend(mixing: Mixing, shape: Sequence[int], random: np.random.Generator) -> Blend:
    """Draws how a batch is mixed.

    Args:
        mixing: ways to mix, at least one of them on.
        shape: shape (B, C, H, W) of the batch's images.
        random: random generator that everything is drawn from.
    """
    count, _, height, width = shape
    cut = mixing.cutmix > 0 and (mixing.mixup == 0 or random.random() < 0.5)
    alpha = mixing.cutmix if cut else mixing.mixup
    own = float(random.beta(alpha, alpha))
    order = torch.from_numpy(random.permutation(count))
    if not cut:
        return Blend(order, own)
    side = math.sqrt(1 - own)  # of the box, as a share of the image's
    middle_y, middle_x = int(random.integers(height)), int(random.integers(width))
    top, bottom = _clipped(middle_y, round(height * side), height)
    left, right = _clipped(middle_x, round(width * side), width)
    # what the border cut off is the image's own again
    return Blend(order, 1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def blended(images: Tensor, targets: Tensor, blend: Blend) -> tuple[Tensor, Tensor]:
    """The batch mixed: images [B, C, H, W] and targets [B, K], each in its shape; the given ones stay as they are."""
    order = uploaded(blend.order, images.device)
    others = images[order]
    if blend.box is None:
        mixed = blend.own * images + (1 - blend.own) * others
    else:
        top, bottom, left, right = blend.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return mixed, blend.own * targets + (1 - blend.own) * targets[order]


def _clipped(middle: int, length: int, side: int) -> tuple[int, int]:
    """An interval of `length` about `middle`, as far as it lies within [0, side)."""
    begin = middle - length // 2
    return max(begin, 0), min(begin + length, side)
