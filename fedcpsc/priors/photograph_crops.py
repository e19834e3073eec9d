# SPDX-License-Identifier: Apache-2.0
"""Crops of the two photographs that come with scikit-learn: a temple, and a flower.

They are public, installed with the package, and licensed for reuse (CC BY, see scikit-learn's own notice).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.errors import ConfigError, explain

__all__ = ["photograph_crops"]

_SCALES = 12  # sizes of crops, from a twentieth of a photograph's shorter side to all of it
_SMALLEST = 0.05


def photograph_crops(count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Square-cornered crops of random place and size, each of one photograph.

    Args:
        count: number of crops, >= 0.
        image_shape: shape (C, H, W) of each; with C other than 3 they are grey.
        generator: stream of the places and sizes, the only randomness.

    Returns:
        float32 [count, C, H, W] in [-1, 1]. A crop has as many pixels of the photograph as the image, or more, unless
        the photograph (427x640) is smaller than the image: it is then enlarged.
    """
    channels, height, width = image_shape
    photographs = _photographs(channels)
    crops = torch.empty(count, *image_shape)
    which = torch.randint(len(photographs) * _SCALES, (count,), generator=generator)
    for number in sorted(set(which.tolist())):
        index, scale = number // _SCALES, number % _SCALES / (_SCALES - 1)
        scaled = _scaled(channels, index, _size(photographs[index], height, width, scale))
        mask = which == number
        down = torch.randint(scaled.shape[1] - height + 1, (int(mask.sum()),), generator=generator)
        right = torch.randint(scaled.shape[2] - width + 1, (int(mask.sum()),), generator=generator)
        windows = scaled.unfold(1, height, 1).unfold(2, width, 1)  # [C, rows, columns, H, W]
        crops[mask] = windows[:, down, right].transpose(0, 1)
    return crops


@lru_cache(maxsize=2)  # of 7 MB: a run asks for crops in every round, of large images in every chunk
def _photographs(channels: int) -> tuple[Tensor, ...]:
    """Both photographs, float32 [C, rows, columns] in [-1, 1]; not to be written to.

    Raises:
        ConfigError: they cannot be read.
    """
    try:
        from sklearn.datasets import load_sample_images  # noqa: PLC0415 - slow to import, and only this needs it

        read = load_sample_images().images
    except (ImportError, OSError) as error:
        constraint = f"cannot be read from scikit-learn ({error})"
        remedy = "install scikit-learn whole, or leave the prior out"
        raise ConfigError(explain("prior", "photographs", constraint, remedy)) from error
    pictures = [torch.tensor(picture).permute(2, 0, 1) / 127.5 - 1 for picture in read]
    return tuple(pictures if channels == 3 else [picture.mean(0).expand(channels, -1, -1) for picture in pictures])


def _size(photograph: Tensor, height: int, width: int, scale: float) -> tuple[int, int]:
    """Rows and columns of a photograph made so small that a window of [height, width] is a crop of the wanted size.

    Args:
        photograph: float32 [C, rows, columns].
        height, width: size of the window in pixels.
        scale: size of the crop in [0, 1]: 0 the smallest, 1 all of the photograph's shorter side.
    """
    rows, columns = photograph.shape[1:]
    whole = max(height / rows, width / columns)  # by this factor the window just fits
    factor = whole if whole >= 1 else min(1.0, whole * math.exp(-math.log(_SMALLEST) * (1 - scale)))
    return max(height, round(rows * factor)), max(width, round(columns * factor))


@lru_cache(maxsize=2 * _SCALES)  # of 3 MB at most, but for images larger than the photographs
def _scaled(channels: int, index: int, size: tuple[int, int]) -> Tensor:
    """One of the photographs, float32 [C, *size] in [-1, 1]; not to be written to."""
    photograph = _photographs(channels)[index]
    resized = F.interpolate(photograph[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.clamp(-1, 1)
