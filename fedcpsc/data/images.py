# SPDX-License-Identifier: Apache-2.0
"""Labelled images, and the one conversion between stored pixels and network inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.data.reading import ReadingReport
from fedcpsc.errors import DataError, explain

__all__ = ["ImageSet", "to_pixels", "to_uint8"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], in [0, classes).
        classes: K.
        persons: text [N], the id of the person behind each image; None where every image stands for itself.
        class_names: K names in the order of the labels; None where the classes have numbers alone.
        reading: report for the owner on the reading that the images are from; None for images that were not read.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: int
    persons: npt.NDArray[np.str_] | None = None
    class_names: tuple[str, ...] | None = None
    reading: ReadingReport | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            got = f"{self.images.dtype}{list(self.images.shape)}"
            raise DataError(explain("images", got, "must be uint8 [N, C, H, W]", "convert before use"))
        if len(self.images) != len(self.labels):
            raise DataError(
                explain("labels", len(self.labels), f"must be one per image ({len(self.images)})", "check the file")
            )
        if self.persons is not None and (self.persons.dtype.kind != "U" or self.persons.shape != self.labels.shape):
            got = f"{self.persons.dtype}{list(self.persons.shape)}"
            raise DataError(
                explain(
                    "persons", got, f"must be text, one per image ({len(self.images)})", "name every image's person"
                )
            )

        if self.class_names is not None and len(self.class_names) != self.classes:
            got = f"{len(self.class_names)} names"
            raise DataError(explain("class_names", got, f"must be one for each of {self.classes} classes", "name all"))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def person_count(self) -> int | None:
        """Number of different persons; None where every image stands for itself."""
        return None if self.persons is None else len(np.unique(self.persons))

    def digests(self) -> list[bytes]:
        """A short hash of each image: those of two are equal where their pixels are."""
        shape = repr(self.image_shape).encode()
        return [hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest() for image in self.images]

    def subset(self, index: npt.NDArray[Any]) -> ImageSet:
        """The images at `index`, in its order, with their persons; of the same reading."""
        persons = None if self.persons is None else self.persons[index]
        return replace(self, images=self.images[index], labels=self.labels[index], persons=persons)


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, C, H, W] -> float32 in [-1, 1]: the range every network of the project takes."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Inverse of `to_pixels`, rounding to the nearest of 256 levels and clipping."""
    return pixels.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
