# SPDX-License-Identifier: Apache-2.0
"""A folder that nobody has described yet: how its pictures are kept, of which classes, how large, in how many channels.

Files are listed and some pictures opened; nothing is trained on, and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcpsc.data.pixels import open_picture
from fedcpsc.data.readers.source import SOURCES, Split, has_split, read_split
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable
from fedcpsc.silo_config import DataConfig

__all__ = ["FirstLook", "look_at"]

_SOURCES = ("folder", "parquet")  # those that can be told by what lies there
_OPENED = 200
_MOST_SILOS = 10_000
_SIDE = 32  # pixels: larger pictures cost much more time, and most figures of this project are of smaller ones
_NAMED = 5


@dataclass(frozen=True)
class FirstLook:
    """What lies in a folder.

    Attributes:
        source: name of the data source that reads it.
        place: absolute path of the folder.
        own_files: number of silos that have folders of their own in it, `0`, `1`, ...; None where it is one data set.
        pictures: number of training pictures.
        classes: names of the classes; numbers where the files name none.
        held_out: whether there is a test split.
        sizes: upright (width, height) of the pictures that were opened, each once, the smallest first.
        channels: numbers of channels that they have, 1 or 3, ascending.
        opened: number of pictures that were opened.
        damaged: number of those that cannot be decoded.
    """

    source: str
    place: str
    own_files: int | None
    pictures: int
    classes: tuple[str, ...]
    held_out: bool
    sizes: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]
    opened: int
    damaged: int

    @property
    def image_size(self) -> int | None:
        """The side to bring all pictures to; None where they have one size, which is small enough."""
        smallest = min(min(size) for size in self.sizes)
        if len(self.sizes) == 1 and max(self.sizes[0]) <= _SIDE:
            return None
        return min(_SIDE, max(smallest, 8))

    def lines(self) -> Iterator[str]:
        """What was found, for people."""
        whose = "" if self.own_files is None else f" of {self.own_files} silos with files of their own"
        named = ", ".join(printable(name) for name in self.classes[:_NAMED])
        more = ", ..." if len(self.classes) > _NAMED else ""
        yield (
            f"{printable(self.place)}: {self.pictures:,} training pictures{whose} in {len(self.classes)} classes"
            f" ({named}{more}), read as {self.source}; {'a' if self.held_out else 'no'} test split"
        )
        first, last = (f"{width}x{height}" for width, height in (self.sizes[0], self.sizes[-1]))
        sizes = first if len(self.sizes) == 1 else f"{first} to {last}"
        kinds = " and ".join({1: "grey", 3: "colour"}[number] for number in self.channels)
        yield f"{self.opened} of them opened: {sizes} pixels (width x height), {kinds}"
        if self.damaged:
            yield f"{self.damaged} of those cannot be decoded: fedcpsc teachers names them; see data.skip_damaged"


def look_at(folder: Path) -> FirstLook:
    """A first look at a folder of pictures: one data set, or one folder `0`, `1`, ... for each silo.

    Raises:
        DataError: it is no folder, holds nothing that is read, or no picture in it can be decoded.
    """
    place = folder.expanduser().absolute()
    if not place.is_dir():
        raise DataError(explain("--data", str(folder), "is no folder", "check the path, or use --data digits"))
    for source in _SOURCES:
        whole = DataConfig(source=source)
        if has_split(whole, place, "train"):
            split = read_split(whole, place, "train")
            return _looked(source, place, None, [split], has_split(whole, place, "test"))
        silos = 0
        while silos < _MOST_SILOS and (own := place / str(silos)).is_dir() and has_split(whole, own, "train"):
            silos += 1
        if silos:
            splits = [read_split(whole, place / str(number), "train") for number in range(silos)]
            return _looked(source, place, silos, splits, has_split(whole, place, "test"))
    forms = ", or ".join(SOURCES.get(source).place_of("train") for source in _SOURCES)
    constraint = f"holds no {forms}; and no folders 0, 1, ... of silos that do"
    raise DataError(explain("--data", str(folder), constraint, "bring the pictures into one of these forms"))


def _looked(source: str, place: Path, silos: int | None, splits: list[Split], held_out: bool) -> FirstLook:
    sizes: set[tuple[int, int]] = set()
    channels: set[int] = set()
    opened = damaged = 0
    for split in splits:
        count = len(split.pictures)
        for i in np.unique(np.linspace(0, count - 1, math.ceil(_OPENED / len(splits)), dtype=np.int64))[:count]:
            opened += 1
            try:
                image, seen = open_picture(split.pictures[int(i)], None, "white")
            except Exception:  # decoders raise whatever they like on damaged bytes
                damaged += 1
                continue
            sizes.add(seen.size)
            channels.add(1 if image.mode == "L" else 3)
    if not sizes:
        constraint = f"holds no picture that can be decoded, of {opened} that were opened"
        raise DataError(explain("--data", str(place), constraint, "see which formats are read: docs/pictures.md"))
    return FirstLook(
        source=source,
        place=str(place),
        own_files=silos,
        pictures=sum(len(split.pictures) for split in splits),
        classes=splits[0].class_names,
        held_out=held_out,
        sizes=tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size))),
        channels=tuple(sorted(channels)),
        opened=opened,
        damaged=damaged,
    )
