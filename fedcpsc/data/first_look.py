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
from fedcpsc.data.readers.listing import unread
from fedcpsc.data.readers.source import SOURCES, Split, has_split, read_split
from fedcpsc.data.reading import first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable
from fedcpsc.silo_config import DataConfig

__all__ = ["FirstLook", "look_at"]

_SOURCES = ("folder", "parquet")  # those that can be told by what lies there
_OPENED = 200
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
        classes: names of the classes of all silos; numbers where the files name none.
        unlike: whether the silos name other classes, or the same in another order, so that each can only know its own.
        held_out: whether there is a test split.
        sizes: upright (width, height) of the pictures that were opened, each once, the smallest first.
        channels: numbers of channels that they have, 1 or 3, ascending.
        opened: number of pictures that were opened.
        damaged: number of those that cannot be decoded.
        notes: sentences about how they are read, and about what is not.
    """

    source: str
    place: str
    own_files: int | None
    pictures: int
    classes: tuple[str, ...]
    unlike: bool
    held_out: bool
    sizes: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]
    opened: int
    damaged: int
    notes: tuple[str, ...]

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
        if self.unlike:
            yield "the silos do not name the same classes in the same order: each teacher knows its own silo's alone"
        yield from (f"note: {note}" for note in self.notes[:_NAMED])
        if len(self.notes) > _NAMED:
            yield f"note: and {len(self.notes) - _NAMED} notes more, which fedcpsc teachers shows"


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
    source, silos = _own_folders(place)
    own = DataConfig(source=source)
    splits = [read_split(own, place / str(number), "train") for number in range(silos)]
    names = {*map(str, range(silos)), "test"}
    beside = unread(place, lambda path: path.name.partition(".")[0] in names, "the silos' and test", common=False)
    return _looked(source, place, silos, splits, has_split(own, place, "test"), beside)


def _own_folders(place: Path) -> tuple[str, int]:
    """How the silos' own folders `0`, `1`, ... are read, and how many there are.

    Raises:
        DataError: there is none, one is missing between them, or not all are of one form.
    """
    forms = {
        int(path.name): [source for source in _SOURCES if has_split(DataConfig(source=source), path, "train")]
        for path in place.iterdir()
        if path.is_dir() and path.name.isdecimal() and path.name == str(int(path.name))
    }
    silos = sorted(number for number, found in forms.items() if found)
    places = [SOURCES.get(source).place_of("train") for source in _SOURCES]
    if not silos:
        constraint = f"holds no {', or '.join(places)}; and no folders 0, 1, ... of silos that do"
        raise DataError(explain("--data", str(place), constraint, "bring the pictures into one of these forms"))
    if silos != list(range(len(silos))):
        missing = next(number for number in range(len(silos)) if number not in silos)
        there = first_of(map(str, silos), len(silos))
        constraint = (
            f"silos' folders are 0, 1, ... without a gap: {there} hold training pictures, and {missing} does not"
        )
        raise DataError(explain("--data", str(place), constraint, "rename the folders"))
    common = [source for source in _SOURCES if all(source in forms[number] for number in silos)]
    if not common:
        other = next(number for number in silos if forms[number] != forms[0])
        constraint = f"silo 0 holds {SOURCES.get(forms[0][0]).place_of('train')}, and silo {other} "
        constraint += f"{SOURCES.get(forms[other][0]).place_of('train')}: one configuration reads all alike"
        raise DataError(explain("--data", str(place), constraint, "bring all silos' pictures into one form"))
    return common[0], len(silos)


def _classes(splits: list[Split]) -> tuple[tuple[str, ...], bool]:
    """The classes of all splits, and whether splits number theirs otherwise, so that each silo can only have its own.

    Raises:
        DataError: they do, and some have numbers alone.
    """
    longest = max((split.class_names for split in splits), key=len)
    if all(split.class_names == longest[: len(split.class_names)] for split in splits):
        return longest, False
    nameless = [split.place for split in splits if not split.named]
    if nameless:
        constraint = "names no classes, and another silo's files name theirs"
        raise DataError(explain("--data", nameless[0], constraint, "name the classes in every silo's files"))
    return tuple(dict.fromkeys(name for split in splits for name in split.class_names)), True


def _looked(
    source: str, place: Path, silos: int | None, splits: list[Split], held_out: bool, beside: tuple[str, ...] = ()
) -> FirstLook:
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
    classes, unlike = _classes(splits)
    whose = [""] if silos is None else [f"silo {number}: " for number in range(silos)]
    return FirstLook(
        source=source,
        place=str(place),
        own_files=silos,
        pictures=sum(len(split.pictures) for split in splits),
        classes=classes,
        unlike=unlike,
        held_out=held_out,
        sizes=tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size))),
        channels=tuple(sorted(channels)),
        opened=opened,
        damaged=damaged,
        notes=(*beside, *(who + note for who, split in zip(whose, splits, strict=True) for note in split.notes)),
    )
