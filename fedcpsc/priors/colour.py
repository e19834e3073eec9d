# SPDX-License-Identifier: Apache-2.0
"""Colour: the channels of a picture mostly rise and fall together."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["jittered", "muted"]


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


def jittered(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Varies each image's contrast, brightness, saturation and hue; the last two of images of three channels alone.

    Args:
        images: [N, C, H, W] in [-1, 1].
        generator: stream of the variations, the only randomness.
        strength: size of the variations in [0, 1]: at 0 nothing changes, at 1 contrast and saturation change by up to
            60 %, brightness by up to an eighth of the range and hue by up to a fifth of the circle.

    Returns:
        [N, C, H, W] in [-1, 1]; what left the range is clipped.
    """

    def uniform(most: float) -> Tensor:
        return torch.empty(len(images), 1, 1, 1).uniform_(-most, most, generator=generator) * strength

    contrast, brightness, saturation, hue = 1 + uniform(0.6), uniform(0.25), 1 + uniform(0.6), uniform(0.4 * torch.pi)
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        colour = images - grey  # in the plane across the grey axis, in which hue is an angle
        aside = (colour.roll(1, 1) - colour.roll(-1, 1)) / 3**0.5  # the same, turned by a right angle
        images = grey + saturation * (hue.cos() * colour + hue.sin() * aside)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(-1, 1)
