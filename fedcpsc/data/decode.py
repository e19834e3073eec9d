# SPDX-License-Identifier: Apache-2.0
"""Pictures as they lie in files -> one uint8 array."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedcpsc.errors import DataError, explain

__all__ = ["Picture", "decode"]

Picture: TypeAlias = bytes | Path | npt.NDArray[np.uint8]
"""An encoded file's bytes, a file's path, or pixels [H, W] (grey) or [H, W, 3] (RGB)."""

_GREY_MODES = {"1", "L", "LA", "La"}
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}


def decode(
    pictures: Sequence[Picture],
    name_of: Callable[[int], str],
    image_size: int | None = None,
    channels: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Decodes, converts and resizes (bilinear, antialiased) into uint8 [N, C, H, W].

    Args:
        pictures: N >= 1 pictures.
        name_of: what to call picture i in an error.
        image_size: side of the square to resize to; None keeps the size, which must then be the same for all.
        channels: 1 or 3; None keeps what the files have, which must then be the same for all.

    Raises:
        DataError: where a picture cannot be decoded, or sizes or channels differ and nothing says what to make of it.
    """
    array: npt.NDArray[np.uint8] | None = None
    for i, picture in enumerate(pictures):
        pixels = _pixels(picture, name_of(i) if not isinstance(picture, np.ndarray) else "", image_size, channels)
        if array is None:
            array = np.empty((len(pictures), *pixels.shape), np.uint8)
        if pixels.shape != array.shape[1:]:
            raise _unequal(name_of(i), pixels.shape, array.shape[1:])
        array[i] = pixels
    if array is None:
        raise DataError(explain("images", 0, "there must be at least one", "check the data's path"))
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _pixels(picture: Picture, name: str, image_size: int | None, channels: int | None) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, C]."""
    try:
        if isinstance(picture, np.ndarray):
            image = Image.fromarray(picture)
        else:
            image = Image.open(io.BytesIO(picture.read_bytes() if isinstance(picture, Path) else picture))
        if image.mode not in _GREY_MODES | _COLOUR_MODES:
            raise DataError(
                explain("image", name, f"has pixel format {image.mode}", "convert it to 8 bits per channel")
            )
        mode = {1: "L", 3: "RGB", None: "L" if image.mode in _GREY_MODES else "RGB"}[channels]
        if image.mode != mode:
            image = image.convert(mode)
        if image_size is not None and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what PIL raises on bad files
        raise DataError(
            explain("image", name, f"cannot be decoded ({error})", "replace the image or remove its row")
        ) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _unequal(name: str, got: tuple[int, ...], first: tuple[int, ...]) -> DataError:
    if got[:2] != first[:2]:
        sizes = f"images differ in size ({name} is {got[0]}x{got[1]}, the first is {first[0]}x{first[1]})"
        return DataError(explain("data.image_size", None, sizes, "set data.image_size to the side they shall have"))
    counts = f"images differ in channels ({name} has {got[2]}, the first has {first[2]})"
    return DataError(explain("data.channels", None, counts, "set data.channels to 1 or 3"))
