# SPDX-License-Identifier: Apache-2.0
"""Label-keeping changes of images, vectorised over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mirrored", "random_flip", "random_shift", "shifted"]


def random_shift(x: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Moves each image by up to `most` pixels each way; what enters repeats the border. [B, C, H, W] -> the same."""
    if most == 0:
        return x
    down = torch.randint(0, 2 * most + 1, (x.shape[0], 1, 1), generator=generator, device=x.device)
    right = torch.randint(0, 2 * most + 1, (x.shape[0], 1, 1), generator=generator, device=x.device)
    return shifted(x, most, down.flatten(), right.flatten())


def shifted(x: Tensor, most: int, down: Tensor, right: Tensor) -> Tensor:
    """Each image cut from its surroundings, which repeat its border.

    Args:
        x: images [B, C, H, W].
        most: width of the surroundings in pixels, >= 0.
        down: row at which each cut begins, integers [B] in [0, 2 most]; `most` leaves the image where it is.
        right: column at which each cut begins, the same.

    Returns:
        [B, C, H, W].
    """
    b, _, h, w = x.shape
    padded = F.pad(x, (most, most, most, most), mode="replicate")
    image = torch.arange(b, device=x.device)[:, None, None]
    rows = torch.arange(h, device=x.device)[None, :, None] + down[:, None, None]
    columns = torch.arange(w, device=x.device)[None, None, :] + right[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirrors each image left to right with probability one half. [B, C, H, W] -> the same."""
    return mirrored(x, torch.rand(x.shape[0], generator=generator, device=x.device) < 0.5)


def mirrored(x: Tensor, which: Tensor) -> Tensor:
    """Mirrors some of the images left to right. [B, C, H, W] -> the same.

    Args:
        x: images [B, C, H, W].
        which: images to mirror, bool [B].
    """
    return torch.where(which[:, None, None, None], x.flip(3), x)
