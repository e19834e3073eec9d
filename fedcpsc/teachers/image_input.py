# SPDX-License-Identifier: Apache-2.0
"""What a model with stated input takes: shape, layout, type and batch of its images, as far as that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.manifest import Normalisation

__all__ = ["ImageInput", "check_raw", "image_input", "raw_pixels", "takes_raw_pixels"]

_GREY_OR_COLOUR = (1, 3)
_CHANNELS = {"c", "ch", "chan", "channel", "channels", "num_channels", "in_channels", "in_chans", "depth"}
_HEIGHTS = {"h", "height", "rows", "img_height", "image_height"}
_WIDTHS = {"w", "width", "cols", "columns", "img_width", "image_width"}


@dataclass(frozen=True)
class ImageInput:
    """What a model's one input takes.

    Attributes:
        name: name of the input.
        dtype: type of its numbers.
        channels_last: whether it is [N, H, W, C] rather than [N, C, H, W].
        batch: number N of images where it is fixed; None where it is free.
        image_shape: shape (C, H, W); None where the model leaves it open and nobody says it.
        channels: number C of channels; None where the model leaves it open.
        assumed: whether the order of its axes follows from nothing, so that [N, C, H, W] was taken.
    """

    name: str
    dtype: type[np.generic]
    channels_last: bool
    batch: int | None
    image_shape: tuple[int, int, int] | None
    channels: int | None
    assumed: bool = False

    def notes(self) -> list[str]:
        """Sentences for the owner about what is done to images before the model takes them."""
        found = []
        if self.dtype in (np.float16, np.float64):
            found.append(f"the model takes {self.dtype.__name__}: pixels are cast to it")
        if self.dtype is np.uint8:
            found.append("the model takes uint8, pixels as they are: it must normalise them itself")
        if self.channels_last:
            found.append("the model takes channels last [N, H, W, C]: images are transposed for it")
        if self.assumed:
            found.append("the model does not say the order of its axes: channels first [N, C, H, W] was taken")
        if self.batch:
            how = "larger batches are cut, smaller ones filled up"
            found.append(f"the model takes {self.batch} image{'s' if self.batch > 1 else ''} at a time: {how}")
        return found

    def normalisation(self, said: Normalisation | None) -> Normalisation | None:
        """The normalisation for the manifest: as the owner says, or pixels as they are for a uint8 input.

        Raises:
            ManifestError: where the owner says one that a uint8 input cannot take.
        """
        if self.dtype is not np.uint8 or self.channels is None:
            return said
        if said is not None and not takes_raw_pixels(said):
            shown = "cannot be applied: the model takes uint8, pixels as they are, and normalises them itself"
            remedy = "leave it out, or say that pixels go in as they are"
            raise ManifestError(explain("normalisation", said.model_dump(), shown, remedy))
        return raw_pixels(self.channels)


def image_input(
    own: str,
    dtype: type[np.generic],
    sizes: list[int | None],
    name: str,
    wanted: tuple[int, int, int] | None,
    axes: Sequence[str] = ("",) * 4,
) -> ImageInput:
    """What an input takes.

    Args:
        own: name of the input.
        dtype: type of its numbers.
        sizes: its sizes, None where free.
        name: what the model's file is called in messages.
        wanted: shape (C, H, W) of the images that it will be given; None takes what the sizes say.
        axes: names of its axes as the model has them, empty where it has none; they decide where the sizes do not.

    Raises:
        ManifestError: where it does not take one batch of images, or not of the shape that is wanted.
    """
    if len(sizes) != 4:
        shown = f"takes an input of {len(sizes)} dimensions, must take [N, C, H, W]"
        raise ManifestError(explain("model", name, shown, "export it with a batch of images as its input"))
    said = _last_by_name(axes[1:])
    last, assumed = _channels_last(sizes[1:], name, wanted, said)
    channels, height, width = [sizes[3], *sizes[1:3]] if last else sizes[1:]
    shape = None if channels is None or height is None or width is None else (channels, height, width)
    return ImageInput(own, dtype, last, sizes[0], shape or wanted, channels or (wanted or (None,))[0], assumed)


def raw_pixels(channels: int) -> Normalisation:
    """The normalisation that leaves pixels as they are, 0 to 255."""
    return Normalisation(mean=(0.0,) * channels, std=(1 / 255,) * channels)


def takes_raw_pixels(normalisation: Normalisation) -> bool:
    """Whether a normalisation leaves pixels as they are."""
    return all(abs(mean) < 1e-6 for mean in normalisation.mean) and all(
        abs(std * 255 - 1) < 1e-4 for std in normalisation.std
    )


def check_raw(taken: ImageInput, normalisation: Normalisation, name: str) -> None:
    """Does nothing where the manifest's normalisation can be applied before this input.

    Raises:
        ManifestError: where the input is uint8 and pixels would not go in as they are.
    """
    if taken.dtype is np.uint8 and not takes_raw_pixels(normalisation):
        shown = "takes uint8, pixels as they are, and the manifest's normalisation says otherwise"
        remedy = f"set mean 0 and std {1 / 255} in the manifest, or export the model with a float32 input"
        raise ManifestError(explain("weights", name, shown, remedy))


def _channels_last(
    sizes: list[int | None], name: str, wanted: tuple[int, int, int] | None, said: bool | None
) -> tuple[bool, bool]:
    """Whether three sizes, None where free, are (H, W, C) rather than (C, H, W); and whether this is a guess.

    Args:
        said: what the names of the axes say; None where they say nothing.
    """
    if wanted is not None:
        channels, height, width = wanted
        first, last = _fits(sizes, (channels, height, width)), _fits(sizes, (height, width, channels))
        if first and last:
            return bool(said), said is None and wanted != (height, width, channels)
        if first or last:
            return last, False
        shown = f"takes images of shape {tuple(size or 'any' for size in sizes)}, must take image_shape={wanted}"
        raise ManifestError(explain("model", name, shown, "set image_shape (C, H, W) as the model has it"))
    first, last = sizes[0] in _GREY_OR_COLOUR, sizes[2] in _GREY_OR_COLOUR
    if first == last and None not in sizes and (sizes[0] == sizes[1]) != (sizes[1] == sizes[2]):
        first, last = sizes[1] == sizes[2], sizes[0] == sizes[1]  # neither grey nor colour: the square ones are sides
    if first != last:
        return last, False
    if said is not None or first or None in sizes:
        return bool(said), False
    shown = f"takes images of shape {tuple(sizes)}, of which any could be the channels"
    raise ManifestError(explain("model", name, shown, "say the shape as channels x height x width"))


def _last_by_name(axes: Sequence[str]) -> bool | None:
    """Whether three axes are (H, W, C) rather than (C, H, W), by their names; None where these do not say it."""
    if len(axes) != 3:
        return None
    first, second, third = (axis.lower() for axis in axes)
    last = third in _CHANNELS or (first in _HEIGHTS and second in _WIDTHS)
    return last if last != (first in _CHANNELS or (second in _HEIGHTS and third in _WIDTHS)) else None


def _fits(sizes: list[int | None], wanted: tuple[int, int, int]) -> bool:
    return all(size is None or size == want for size, want in zip(sizes, wanted, strict=True))
