# SPDX-License-Identifier: Apache-2.0
"""Images as PNG files and back, to the bit."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["MODES", "from_png", "to_png"]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels: those of which PNG has a form that keeps each byte."""


def to_png(image: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of a file.

    Args:
        image: pixels, uint8 [C, H, W], C being a key of `MODES`.
    """
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes, image_shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """The pixels of a file, uint8 [C, H, W]. Nothing is decoded of a file of another size than is wanted.

    Args:
        data: bytes of a PNG file.
        image_shape: shape (C, H, W) that it must have.

    Raises:
        ValueError: it is no PNG file, is damaged, or has another size or another number of channels.
    """
    channels, height, width = image_shape
    wanted = f"{MODES.get(channels)} {height}x{width}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: these are refused by their size
            picture = Image.open(io.BytesIO(data), formats=["PNG"])
        found = f"{picture.mode} {picture.height}x{picture.width}"
        pixels = np.asarray(picture, np.uint8) if found == wanted else None
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise ValueError(f"it is no PNG file, or a damaged one ({type(error).__name__})") from error
    if pixels is None:
        raise ValueError(f"it is {found}, and must be {wanted}")
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)
