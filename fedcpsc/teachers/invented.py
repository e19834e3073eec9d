# SPDX-License-Identifier: Apache-2.0
"""Invented images of many kinds, to try a teacher on: they are made of nothing private, and the same every time.

Needs NumPy alone: a silo with an ONNX model has no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["invented_images"]

Images: TypeAlias = npt.NDArray[np.uint8]
Kind: TypeAlias = Callable[[tuple[int, int, int], np.random.Generator], npt.NDArray[np.float64]]


def invented_images(count: int, image_shape: tuple[int, int, int], first: int = 0) -> Images:
    """Black, white, flat, ramps, stripes, blots and noise, by turns: uint8 [count, C, H, W].

    Args:
        count: number of images, >= 1.
        image_shape: shape (C, H, W) of an image.
        first: number of the first image, >= 0; image i is the same whatever `first` and `count` are.
    """
    images = np.empty((count, *image_shape), np.uint8)
    for place in range(count):
        number = first + place
        kind = _KINDS[number % len(_KINDS)]
        drawn = kind(image_shape, np.random.default_rng(number))
        images[place] = np.clip(np.rint(255 * drawn), 0, 255)
    return images


def _blots(shape: tuple[int, int, int], source: np.random.Generator, cells: int = 4) -> npt.NDArray[np.float64]:
    """A few large patches of colour."""
    channels, height, width = shape
    coarse = source.random((channels, cells, cells))
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    return coarse[:, rows][:, :, columns]


def _ramp(shape: tuple[int, int, int], source: np.random.Generator) -> npt.NDArray[np.float64]:
    """From one colour to another, across the image."""
    channels, height, width = shape
    begin, end = source.random((2, channels, 1, 1))
    angle = source.uniform(0, 2 * np.pi)
    down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    way = np.clip((1 + np.cos(angle) * down + np.sin(angle) * across) / 2, 0, 1)
    return np.asarray(begin + (end - begin) * way)


def _stripes(shape: tuple[int, int, int], source: np.random.Generator) -> npt.NDArray[np.float64]:
    """Two colours by turns, upright or lying."""
    channels, height, width = shape
    colours = source.random((2, channels, 1, 1))
    wide = int(source.integers(1, max(2, min(height, width) // 2)))
    upright = bool(source.integers(2))
    place = np.arange(width)[None, :] if upright else np.arange(height)[:, None]
    return np.asarray(np.where(place // wide % 2 == 0, colours[0], colours[1]) * np.ones(shape))


_KINDS: tuple[Kind, ...] = (
    lambda shape, source: source.random(shape),
    lambda shape, source: np.zeros(shape),
    _blots,
    lambda shape, source: np.ones(shape),
    _ramp,
    _stripes,
    lambda shape, source: np.broadcast_to(source.random((shape[0], 1, 1)), shape),
    lambda shape, source: _blots(shape, source, 8) * 0.7 + source.random(shape) * 0.3,
)
