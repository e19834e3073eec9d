# SPDX-License-Identifier: Apache-2.0
"""Colour: the channels of a picture mostly rise and fall together."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["muted"]


def muted(images: Tensor, generator: torch.Generator, most: float = 0.5) -> Tensor:
    """Leaves of what each image's colours differ from grey by a share uniform in [0, most]; grey images stay.

    In photographs the three channels correlate above 0.9 (Ruderman, Cronin & Chiao 1998), in random colours not at all.

    Args:
        images: [N, C, H, W].

    Returns:
        [N, C, H, W], each image's mean over channels unchanged.
    """
    if images.shape[1] == 1:
        return images
    kept = torch.empty(len(images), 1, 1, 1).uniform_(0, most, generator=generator)
    grey = images.mean(1, keepdim=True)
    return grey + kept * (images - grey)
