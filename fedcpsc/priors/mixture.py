# SPDX-License-Identifier: Apache-2.0
"""A mixture of procedural priors, chosen by name and weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcpsc.choices import check_mixture
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.priors.tones import Tones, bend_tones
from fedcpsc.transfers import uploaded

__all__ = ["draw_kinds", "sample_kinds", "sample_prior"]


def sample_prior(
    mixture: Mapping[str, float],
    count: int,
    image_shape: tuple[int, int, int],
    generator: torch.Generator,
    tones: Tones | None = None,
) -> Tensor:
    """`count` images, each from one prior drawn by weight, in random order.

    Args:
        tones: how light the images are to be; None leaves them as they are.

    Returns:
        float32 [count, C, H, W] in [-1, 1].
    """
    return sample_kinds(mixture, draw_kinds(mixture, count, generator), image_shape, generator, tones)


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
    tones: Tones | None = None,
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
    return images if tones is None else bend_tones(images, tones, stream)
