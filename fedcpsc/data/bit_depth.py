# SPDX-License-Identifier: Apache-2.0
"""Pictures of 16 bits per channel -> 8.

Pillow hands over grey ones as they are. Of colours and of grey with alpha it keeps the upper 8 bits without saying so:
only the file's header tells, before the pixels are read.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

__all__ = ["counts_from_white", "eight_bits", "has_sixteen_bits"]

_DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_DEEPEST = 65_535
_CONVERT = "convert it to 8 bits per channel"
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF 6.0, pp. 29 and 37
_WHITE_IS_ZERO = 0
_SIZ = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1 A.4.1 and A.5.1: start of a code stream, then of its image's sizes
_SIZ_DEPTH = 42  # bytes from there to the first component's bits - 1, the sign in the highest
_HEADER = 1 << 20  # bytes of a JPEG 2000 file in which its code stream begins, but for an enormous colour profile


def has_sixteen_bits(file: ImageFile.ImageFile) -> bool:
    """Whether a picture has 16 bits per channel, as its header says.

    Args:
        file: picture in a PNG, TIFF, SGI or JPEG 2000 file, opened and not loaded. Other formats have fewer bits, or
            Pillow hands over all of them, or as many as their header names (PPM, AVIF).

    Raises:
        ValueError: the channels lie one after another in a form that Pillow takes for 8 bits.
    """
    if file.format == "TIFF":
        deep: bool = max(getattr(file, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))) == 16
        if deep and any(isinstance(tile[3], tuple) and "16" not in str(tile[3][0]) for tile in file.tile):
            raise ValueError(f"has 16 bits per channel, and its channels one after another; {_CONVERT}")
        return deep
    if file.format == "JPEG2000" and file.fp is not None:
        at = file.fp.tell()
        file.fp.seek(0)
        header = file.fp.read(_HEADER)
        file.fp.seek(at)
        start = header.find(_SIZ)
        depth = header[start + _SIZ_DEPTH : start + _SIZ_DEPTH + 1] if start >= 0 else b""
        return depth == bytes([16 - 1])
    return file.format in ("PNG", "SGI") and any("16" in f"{tile[0]} {tile[3]}" for tile in file.tile)


def counts_from_white(file: ImageFile.ImageFile) -> bool:
    """Whether the value 0 is white in a picture that has grey values, as TIFF files may say."""
    return bool(getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def eight_bits(image: Image.Image, *, deep: bool, white_is_zero: bool) -> tuple[Image.Image, int | None]:
    """The picture with 8 bits per channel, and its largest value where it had 16, as the file counts.

    Of colours and of grey with alpha it is the largest that the upper 8 bits allow; alpha does not count.

    Args:
        image: picture as Pillow decodes it.
        deep: whether its file has 16 bits per channel, see `has_sixteen_bits`.
        white_is_zero: whether the file counts from white, which Pillow heeds for up to 8 bits alone.

    Raises:
        ValueError: the values' range is not known.
    """
    if image.mode == "F":
        raise ValueError(f"has floating-point pixels, whose range is not known; {_CONVERT}")
    if image.mode not in _DEEP_MODES and not deep:
        return image, None
    if "transparency" in image.info:
        raise ValueError(f"has 16 bits per channel and a transparent value; {_CONVERT}")
    if image.mode not in _DEEP_MODES:
        seen = [int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band not in "Aa"]
        return image, max(seen) << 8 | 255
    values = np.asarray(image.convert("I"))
    largest, smallest = int(values.max()), int(values.min())
    if smallest < 0 or largest > _DEEPEST:
        shown = f"has values from {smallest} to {largest}"
        raise ValueError(f"{shown}, and 16 bits per channel are the most; {_CONVERT}")
    upright = _DEEPEST - values if white_is_zero else values
    return Image.fromarray(np.round(upright / 257).astype(np.uint8)), largest
