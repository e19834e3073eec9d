# SPDX-License-Identifier: Apache-2.0
"""A mixture of procedural priors, chosen by name and weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcpsc.choices import check_mixture
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.transfers import uploaded

__all__ = ["draw_kinds", "sample_kinds", "sample_prior"]


def sample_prior(
    mixture: Mapping[str, float],
    count: int,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    mean: float | None = None,
) -> Tensor:
    """`count` images, each from one prior drawn by weight, in random order.

    Args:
        mean: public mean of the domain's pixels, in [-1, 1]; tones are bent so that images scatter about it. None
            leaves them as they are.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    return sample_kinds(mixture, draw_kinds(mixture, count, generator), image_shape, generator, mean)


def draw_kinds(mixture: Mapping[str, float], count: int, generator: torch.Generator) -> Tensor:
    """Which prior each of `count` images is to be from: int64 [count], numbers into `sorted(mixture)`, by weight.

    It is what `sample_prior` draws first: from a generator in the same state it tells of that function's images.
    """
    check_mixture(mixture)
    weights = torch.tensor([mixture[name] for name in sorted(mixture)], dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def sample_kinds(
    mixture: Mapping[str, float],
    kinds: Tensor,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    mean: float | None = None,
    on_device: torch.Generator | None = None,
) -> Tensor:
    """As `sample_prior`, of images whose priors are drawn already.

    Args:
        kinds: number of each image's prior in `sorted(mixture)`, int64 [count], on the CPU.
        generator: random generator of the CPU.
        on_device: random generator of the device that the images are wanted on: priors that can draw there do, the
            images of the others are uploaded. None: all is drawn on the CPU, from `generator`.

    Returns:
        float32 [count, C, H, W] in [-1, 1], on the device.
    """
    stream = on_device or generator
    images = torch.empty(len(kinds), *image_shape, device=stream.device)
    for index, name in enumerate(sorted(mixture)):
        rows = (kinds == index).nonzero()[:, 0]
        if len(rows):
            prior = PRIOR_KINDS.get(name)
            drawn = prior.images(len(rows), image_shape, stream if prior.on_device else generator)
            images.index_copy_(0, uploaded(rows, stream.device), uploaded(drawn, stream.device))
    return images if mean is None else bend_tones(images, mean, stream)


def bend_tones(images: Tensor, mean: float, generator: torch.Generator, spread: float = 0.2) -> Tensor:
    """Bends each image's tones by a power curve, so that its mean lies near `mean`; [N, C, H, W] in [-1, 1].

    Which tone is the ground and which the figure is drawn so that the rarer tone of the domain is mostly the figure:
    in a dark domain, light figures on a dark ground.

    Args:
        mean: public mean of the domain's pixels, in (-1, 1).
        generator: random generator of the images' device.
        spread: standard deviation of the images' own means about it.
    """
    n, device = len(images), images.device
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    tones = ((images - low) / (high - low).clamp_min(1e-3)).clamp(1e-4, 1)  # [0, 1]
    dark = torch.rand(n, 1, 1, 1, generator=generator, device=device) < (1 - mean) / 2
    is_dark = tones.mean((1, 2, 3), keepdim=True) < 0.5
    tones = torch.where(dark == is_dark, tones, (1 - tones).clamp_min(1e-4))
    normal = torch.randn(n, 1, 1, 1, generator=generator, device=device)
    wanted = (mean + spread * normal).clamp(-0.97, 0.97) / 2 + 0.5
    log_low, log_high = (torch.full((n, 1, 1, 1), bound, device=device) for bound in (-3.0, 3.0))
    for _ in range(16):  # bisection on the logarithm of the power
        middle = (log_low + log_high) / 2
        too_light = (tones ** middle.exp()).mean((1, 2, 3), keepdim=True) > wanted
        log_low, log_high = torch.where(too_light, middle, log_low), torch.where(too_light, log_high, middle)
    return 2 * tones ** log_low.exp() - 1
