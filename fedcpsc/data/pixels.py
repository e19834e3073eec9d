# SPDX-License-Identifier: Apache-2.0
"""One picture as a camera or a program wrote it -> upright, opaque, 8 bits per channel.

Pillow decodes. Formats that it hands to another program (EPS to Ghostscript), or that it recognises and cannot decode,
are not read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageColor

from fedcpsc.data.bit_depth import counts_from_white, eight_bits, has_sixteen_bits
from fedcpsc.silo_config import Resize

__all__ = ["Picture", "Seen", "fit_picture", "open_picture", "readable_extensions"]

Picture: TypeAlias = bytes | Path | npt.NDArray[np.uint8]
"""An encoded file's bytes, a file's path, or pixels [H, W] (grey) or [H, W, 3] (RGB)."""

_LEFT_TO_OTHERS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_GREY_MODES = {"1", "L", "LA", "La"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_STRAIGHT_ALPHA = {"La": "LA", "RGBa": "RGBA"}  # by mode with colours that are multiplied by alpha
_FILMS = {"GIF", "PNG", "TIFF", "WEBP"}  # formats whose further frames are pictures of their own
_UPRIGHT = {  # by EXIF's Orientation, TIFF 6.0 p. 36
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Seen:
    """What a picture was like before it was brought to a common form.

    Attributes:
        size: (width, height) in pixels, upright.
        turned: whether it lay otherwise in its file, as EXIF said.
        transparent: whether some of it was transparent.
        frames: whether the file holds more pictures than the first, which was taken.
        brightest: value of a picture with 16 bits per channel, in [0, 65535], that none of its own is above; None of
            all others.
    """

    size: tuple[int, int]
    turned: bool = False
    transparent: bool = False
    frames: bool = False
    brightest: int | None = None


@cache
def readable_extensions() -> frozenset[str]:
    """Extensions, in lower case and with their dot, of the formats that are read."""
    formats = set(_formats())
    return frozenset(end for end, form in Image.registered_extensions().items() if form in formats)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(form for form in Image.ID if form not in _LEFT_TO_OTHERS)


def open_picture(picture: Picture, channels: int | None, background: str) -> tuple[Image.Image, Seen]:
    """A picture in mode L or RGB, and what it was like before.

    Args:
        picture: picture in any form.
        channels: 1 for grey, 3 for RGB; None keeps what the file has.
        background: colour behind what is transparent, as Pillow names it.

    Raises:
        Exception: whatever Pillow raises on damaged bytes; ValueError for a pixel format without a known range.
    """
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
        return _in_channels(image, channels), Seen(image.size)
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=_formats()) as file:
        deep, white_is_zero = has_sixteen_bits(file), counts_from_white(file)  # first: EXIF may load the pixels
        frames = _has_frames(file)
        turned = _orientation(file) in tuple(_UPRIGHT)  # which may be of any type
        file.load()  # turns TIFF files by itself, and no others
        image = _upright(file)
        image, brightest = eight_bits(image, deep=deep, white_is_zero=white_is_zero)
        image, transparent = _opaque(image, background)
        image = _in_channels(image, channels)
    return image, Seen(image.size, turned, transparent, frames, brightest)


def fit_picture(image: Image.Image, size: tuple[int, int], resize: Resize, background: str = "white") -> Image.Image:
    """A picture of another size, for training, evaluation and an owner's own pictures alike; a manifest names the way.

    - `squash`: the whole picture, each side scaled by itself.
    - `crop`: the largest part of the wanted proportions, from the middle.
    - `pad`: the whole picture in its own proportions, with borders where it does not reach.

    Pixels are interpolated (bilinear, antialiased). A picture of the wanted proportions is the same under all three.

    Args:
        image: picture in mode L or RGB, upright.
        size: wanted (height, width) in pixels, each >= 1.
        resize: one of the above.
        background: colour of the borders, as Pillow names it.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if resize == "squash" or image.width * height == image.height * width:
        return image.resize((width, height), Image.Resampling.BILINEAR)
    across, down = width / image.width, height / image.height
    if resize == "crop":
        part_width, part_height = min(image.width, width / down), min(image.height, height / across)
        left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
        box = (left, top, min(image.width, left + part_width), min(image.height, top + part_height))
        return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    scale = min(across, down)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    padded = Image.new(image.mode, (width, height), background)
    place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    padded.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
    return padded


def _has_frames(file: Image.Image) -> bool:
    try:
        return file.format in _FILMS and getattr(file, "n_frames", 1) > 1
    except Exception:  # later frames may be damaged; the first is what is read
        return False


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, of which Pillow raises many things, says nothing
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """The picture as it is looked at."""
    orientation = _orientation(image)
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    if "transparency" in image.info:
        turned.info["transparency"] = image.info["transparency"]
    return turned


def _opaque(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The picture laid on the background, and whether any of that is seen."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image, False
    clear = image.convert(_STRAIGHT_ALPHA.get(image.mode, image.mode)).convert("RGBA")
    least = int(np.asarray(clear.getchannel("A")).min())
    red, green, blue = ImageColor.getrgb(background)[:3]
    if least == 255:
        opaque = clear.convert("RGB")
    else:
        opaque = Image.alpha_composite(Image.new("RGBA", clear.size, (red, green, blue, 255)), clear).convert("RGB")
    grey = image.mode in _GREY_MODES and (least == 255 or red == green == blue)
    return (opaque.convert("L") if grey else opaque), least < 255


def _in_channels(image: Image.Image, channels: int | None) -> Image.Image:
    mode = {1: "L", 3: "RGB", None: "L" if image.mode in _GREY_MODES else "RGB"}[channels]
    return image if image.mode == mode else image.convert(mode)
