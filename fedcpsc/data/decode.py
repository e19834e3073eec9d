# SPDX-License-Identifier: Apache-2.0
"""Many pictures -> one uint8 array, with a list of those that are damaged and a count of what was found."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psutil
from PIL import UnidentifiedImageError

from fedcpsc.data.pixels import Picture, Seen, fit_picture, open_picture
from fedcpsc.data.reading import first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable
from fedcpsc.silo_config import Resize

__all__ = ["Decoded", "PictureForm", "decode", "fit_picture", "read_pictures"]

_DARK = 4_095  # largest value of 12 bits: with 16 bits per channel, a sixteenth of the range
_REASON = 200  # characters of Pillow's reason
_DAMAGED_SHOWN = 50  # names in an error


@dataclass(frozen=True)
class PictureForm:
    """What every picture is brought to.

    Attributes:
        size: (height, width) in pixels; None keeps the size, which must then be the same for all.
        channels: 1 or 3; None keeps what the files have, which must then be the same for all.
        resize: way in which a picture of another size is brought to it, see `fit_picture`.
        background: colour behind what is transparent, and of padding, as Pillow names it.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    resize: Resize = "squash"
    background: str = "white"


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pictures as one array, and what was found on the way.

    Attributes:
        images: uint8 [M, C, H, W].
        taken: int64 [M], number of the picture behind each image, ascending.
        damaged: (number, reason) of each picture that was left out.
        sizes: number of pictures of each upright size (width, height).
        notes: sentences about what was done to some of them.
    """

    images: npt.NDArray[np.uint8]
    taken: npt.NDArray[np.int64]
    damaged: tuple[tuple[int, str], ...]
    sizes: Counter[tuple[int, int]]
    notes: tuple[str, ...]


def decode(
    pictures: Sequence[Picture],
    name_of: Callable[[int], str],
    form: PictureForm,
    *,
    skip_damaged: bool = False,
    section: str = "data",
) -> Decoded:
    """Decodes pictures, turns them upright, lays them on the background, converts and resizes them.

    Args:
        pictures: N >= 1 pictures.
        name_of: function that names picture i in an error.
        form: form of the result.
        skip_damaged: whether to leave out what cannot be decoded, instead of refusing all.
        section: section of the configuration that says all this, for errors.

    Raises:
        DataError: where pictures cannot be decoded (all of them are counted, the first are named), sizes or channels
            differ and nothing says what to make of it, or the images do not fit into memory.
    """
    if not len(pictures):
        raise DataError(explain("images", 0, "there must be at least one", f"check {section}.path"))
    array: npt.NDArray[np.uint8] | None = None
    taken: list[int] = []
    damaged: list[tuple[int, str]] = []
    seen: list[Seen] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large pictures and odd metadata; what it gives is right
        for i, picture in enumerate(pictures):
            try:
                pixels, look = _pixels(picture, form)
            except Exception as error:  # decoders raise whatever they like on damaged bytes
                damaged.append((i, _reason(error)))
                continue
            if array is None:
                array = _room(len(pictures), pixels.shape)
            if pixels.shape != array.shape[1:]:
                raise _unequal(name_of(i), pixels.shape, name_of(taken[0]), array.shape[1:])
            array[len(taken)] = pixels
            taken.append(i)
            seen.append(look)
    if damaged and not (skip_damaged and taken):
        raise _damage(damaged, len(pictures), name_of, section)
    assert array is not None  # noqa: S101 - without damage, there is a first picture
    sizes = Counter(look.size for look in seen)
    return Decoded(array[: len(taken)], np.array(taken, np.int64), tuple(damaged), sizes, _notes(seen, form))


def read_pictures(
    pictures: Sequence[Picture],
    image_shape: tuple[int, int, int],
    resize: Resize = "squash",
    background: str = "white",
    name_of: Callable[[int], str] | None = None,
) -> npt.NDArray[np.uint8]:
    """An owner's own pictures as a teacher's input: decoded and fitted as its training and evaluation images were.

    Args:
        pictures: N >= 1 files' paths, files' bytes, or arrays of pixels.
        image_shape: (C, H, W) that the teacher takes, C being 1 or 3.
        resize: way of the teacher's manifest to bring pictures to that size.
        background: colour behind what is transparent.
        name_of: function that names picture i in an error; None names paths by themselves.

    Returns:
        uint8 [N, C, H, W].

    Raises:
        DataError: where some cannot be decoded, or a teacher with such channels takes no pictures.
    """
    channels, height, width = image_shape
    if channels not in (1, 3):
        constraint = "pictures have 1 channel (grey) or 3 (colour)"
        raise DataError(explain("image_shape", image_shape, constraint, "use a teacher for grey or colour pictures"))
    form = PictureForm((height, width), channels, resize, background)
    return decode(pictures, name_of or (lambda i: str(pictures[i])[:_REASON]), form).images


def _pixels(picture: Picture, form: PictureForm) -> tuple[npt.NDArray[np.uint8], Seen]:
    """uint8 [C, H, W], and what the picture was like."""
    image, seen = open_picture(picture, form.channels, form.background)
    if form.size is not None:
        image = fit_picture(image, form.size, form.resize, form.background)
    pixels = np.asarray(image)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), seen


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no picture in a format that is read"  # Pillow names the file, or a place in memory
    return printable(str(error))[:_REASON] or type(error).__name__


def _room(count: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """uint8 [count, C, H, W], not filled."""
    needed, free = count * math.prod(shape), psutil.virtual_memory().available
    try:
        if needed < free:
            return np.empty((count, *shape), np.uint8)
    except MemoryError:
        pass
    constraint = (
        f"{count} images of {shape[2]}x{shape[1]} need {needed / 1e9:.1f} GB, of which {free / 1e9:.1f} are free"
    )
    raise DataError(explain("data.image_size", None, constraint, "set data.image_size, or data.train_limit"))


def _damage(damaged: list[tuple[int, str]], count: int, name_of: Callable[[int], str], section: str) -> DataError:
    reason = damaged[0][1]
    names = first_of((name_of(i) for i, _ in damaged), len(damaged), _DAMAGED_SHOWN)
    if len(damaged) == 1:
        constraint = f"cannot be decoded ({reason})"
    else:
        constraint = f"{len(damaged)} of {count} cannot be decoded (the first: {reason})"
    remedy = "replace the image or remove its row" if len(damaged) == 1 else "replace or remove them"
    return DataError(_explain_whole("image", names, constraint, f"{remedy}; or set {section}.skip_damaged: true"))


def _explain_whole(name: str, value: str, constraint: str, remedy: str) -> str:
    """As `explain`, with a list as its value that is bounded already."""
    return f"{name}={value!r}: {constraint}; {remedy}"


def _unequal(name: str, got: tuple[int, ...], first: str, before: tuple[int, ...]) -> DataError:
    if got[1:] != before[1:]:
        shown = f"({name} is {got[1]}x{got[2]}, the first is {before[1]}x{before[2]})"
        remedy = "set data.image_size to the side they shall have"
        return DataError(explain("data.image_size", None, f"images differ in size {shown}", remedy))
    counts = f"images differ in channels ({name} has {got[0]}, the first has {before[0]})"
    return DataError(explain("data.channels", None, counts, "set data.channels to 1 or 3"))


def _notes(seen: Sequence[Seen], form: PictureForm) -> tuple[str, ...]:
    """What was done to some of the pictures.

    Raises:
        DataError: where most of those with 16 bits per channel use so little of the range that little would be seen.
    """
    deep = [look.brightest for look in seen if look.brightest is not None]
    dark = [value for value in deep if value <= _DARK]
    if 2 * len(dark) > len(deep):  # each by itself: one bright point in one picture says nothing of the others
        have = f"{len(dark)} have" if len(dark) == len(deep) else f"{len(dark)} of {len(deep)} have"
        constraint = f"{have} 16 bits per channel and no value above {max(dark)}: hardly anything of them would be seen"
        remedy = "convert them to 8 bits by the scale that you mean"
        raise DataError(explain("images", len(seen), constraint, remedy))
    found = {
        "turned upright, as EXIF says": sum(look.turned for look in seen),
        f"transparent in places, laid on {form.background}": sum(look.transparent for look in seen),
        "of files with several pictures, of which the first was taken": sum(look.frames for look in seen),
        f"of 16 bits per channel, of which the upper 8 were taken; no value above {max(deep, default=0)}": len(deep),
        f"of these with no value above {max(dark, default=0)}, so that hardly anything of them is seen": len(dark),
    }
    return tuple(f"{count} {what}" for what, count in found.items() if count)
