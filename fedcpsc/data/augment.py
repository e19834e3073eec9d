"""Label-keeping changes of images, vectorised over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["random_flip", "random_shift"]


def random_shift(x: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Moves each image by up to `most` pixels each way; what enters repeats the border. [B, C, H, W] -> the same."""
    if most == 0:
        return x
    b, _, h, w = x.shape
    padded = F.pad(x, (most, most, most, most), mode="replicate")
    dy = torch.randint(0, 2 * most + 1, (b, 1, 1), generator=generator, device=x.device)
    dx = torch.randint(0, 2 * most + 1, (b, 1, 1), generator=generator, device=x.device)
    image = torch.arange(b, device=x.device)[:, None, None]
    rows = torch.arange(h, device=x.device)[None, :, None] + dy
    columns = torch.arange(w, device=x.device)[None, None, :] + dx
    return padded.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirrors each image left to right with probability one half. [B, C, H, W] -> the same."""
    mirrored = torch.rand(x.shape[0], 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(3), x)
