# SPDX-License-Identifier: Apache-2.0
"""Where pixels lie."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pixel_grid"]


def pixel_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixel centres in [-1, 1]: y [H, 1], x [1, W]."""
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    return y[:, None], x[None, :]
