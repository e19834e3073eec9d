# SPDX-License-Identifier: Apache-2.0
"""Tones: how light a domain's images are, and priors' images bent to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LIGHTEST", "SPREAD", "Tones", "bend_tones"]

SPREAD = 0.2
"""Standard deviation of images' means about the domain's, where nothing else is known."""

LIGHTEST = 0.97
"""Largest mean that an image is bent to; the least is its negative."""

_LOG_POWER, _HALVINGS = 3.0, 16


@dataclass(frozen=True)
class Tones:
    """How light images are to be.

    Attributes:
        mean: mean of the domain's pixels, in [-1, 1].
        spread: standard deviation of the images' own means about it, in (0, 1].
        anywhere: share of images, in [0, 1], whose mean may be any instead, each as likely as another: what is asked
            about where nobody knows the domain's.
    """

    mean: float
    spread: float = SPREAD
    anywhere: float = 0.0


def bend_tones(images: Tensor, tones: Tones, generator: torch.Generator) -> Tensor:
    """Bends each image's tones by a power curve, so that its mean lies where `tones` says.

    Which tone is the ground and which the figure is drawn so that the rarer tone of the domain is mostly the figure:
    in a dark domain, light figures on a dark ground. Of an image of several channels the luminance, their mean, is
    bent, and what they differ from it stays: else the muted colours of the priors would be stretched with it.

    Args:
        images: images [N, C, H, W] in [-1, 1].
        tones: how light they are to be.
        generator: random generator of the images' device.

    Returns:
        [N, C, H, W] in [-1, 1]; a colour that left the range is clipped.
    """
    luminance = images.mean(1, keepdim=True)
    bent = _bent(luminance, tones, generator)
    return bent if images.shape[1] == 1 else (bent + (images - luminance)).clamp(-1, 1)


def _bent(images: Tensor, tones: Tones, generator: torch.Generator) -> Tensor:
    n, device = len(images), images.device

    def uniform() -> Tensor:
        return torch.rand(n, 1, 1, 1, generator=generator, device=device)

    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    levels = ((images - low) / (high - low).clamp_min(1e-3)).clamp(1e-4, 1)  # [0, 1]
    coin = uniform()
    wanted = tones.mean + tones.spread * torch.randn(n, 1, 1, 1, generator=generator, device=device)
    if tones.anywhere:
        free = uniform() < tones.anywhere
        wanted = torch.where(free, LIGHTEST * (2 * uniform() - 1), wanted)
        dark = coin < (1 - torch.where(free, wanted, torch.full_like(wanted, tones.mean))) / 2
    else:
        dark = coin < (1 - tones.mean) / 2
    is_dark = levels.mean((1, 2, 3), keepdim=True) < 0.5
    levels = torch.where(dark == is_dark, levels, (1 - levels).clamp_min(1e-4))
    wanted = wanted.clamp(-LIGHTEST, LIGHTEST) / 2 + 0.5
    log_low, log_high = (torch.full((n, 1, 1, 1), bound, device=device) for bound in (-_LOG_POWER, _LOG_POWER))
    for _ in range(_HALVINGS):  # bisection on the logarithm of the power
        middle = (log_low + log_high) / 2
        too_light = (levels ** middle.exp()).mean((1, 2, 3), keepdim=True) > wanted
        log_low, log_high = torch.where(too_light, middle, log_low), torch.where(too_light, log_high, middle)
    return 2 * levels ** log_low.exp() - 1
