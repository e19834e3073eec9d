"""Colour: the channels of a picture mostly rise and fall together."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["correlate_channels"]


def correlate_channels(values: Tensor, generator: torch.Generator) -> Tensor:
    """Weighs the channels' mean against what deviates from it, per image; grey images stay as they are.

    Args:
        values: [N, C, H, W], channels independent and of equal variance.

    Returns:
        [N, C, H, W] of the same variance; between channels a correlation uniform in [0.3, 1].
    """
    count, channels = values.shape[:2]
    if channels == 1:
        return values
    wanted = torch.empty(count, 1, 1, 1).uniform_(0.3, 1.0, generator=generator)
    shared = (1 + (channels - 1) * wanted) / channels  # what deviates from the mean is anticorrelated by itself
    common = values.mean(1, keepdim=True)
    own = values - common
    mixed: Tensor = (channels * shared).sqrt() * common + (channels / (channels - 1) * (1 - shared)).sqrt() * own
    return mixed
