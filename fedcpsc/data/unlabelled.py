# SPDX-License-Identifier: Apache-2.0
"""Unlabelled pictures: the server's own, to ask about (`synthesis.public`), and those of whoever uses a student.

The server's are kept at twice the size of the silos' images where those are small, so that a crop of a half is still
sharp, and in 512 MiB at most: of more pictures a sample is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.data.decode import Decoded, PictureForm, decode
from fedcpsc.data.readers.listing import list_all_pictures
from fedcpsc.data.readers.parquet import image_rows
from fedcpsc.data.readers.shards import has_files, split_files
from fedcpsc.data.reading import LeftOut, ReadingReport, Tally
from fedcpsc.errors import DataError, explain
from fedcpsc.large_images import are_large
from fedcpsc.public_config import PublicConfig
from fedcpsc.seeding import numpy_generator

__all__ = ["Found", "PublicPictures", "find_pictures", "read_found", "read_unlabelled"]

_SECTION = "synthesis.public"
_PATH = f"{_SECTION}.path"
_FEWEST = 10
_MOST_BYTES = 2**29  # of the decoded pictures
_TRAIN = "train"

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Found:
    """Pictures that are not decoded yet.

    Attributes:
        pictures: pictures in a fixed order: paths of files, or files' bytes.
        names: name of each, for reports and errors.
        place: place where they are.
        left_out: files and rows that were found and not taken.
        notes: sentences about how they were found.
    """

    pictures: Sequence[bytes | Path]
    names: Sequence[str]
    place: str
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PublicPictures:
    """Pictures in memory.

    Attributes:
        images: pictures, uint8 [N, C, zoom * H, zoom * W].
        zoom: number of their pixels, along each side, for one of the silos' images: 1 or 2.
        name: last part of the path that they are from.
        digest: SHA-256 over the SHA-256 of each picture's file, in hexadecimal: the same for the same pictures.
        report: report on the reading.
    """

    images: npt.NDArray[np.uint8]
    zoom: int
    name: str
    digest: str
    report: ReadingReport


def find_pictures(config: PublicConfig) -> Found:
    """The pictures that the configuration names; none is decoded.

    Raises:
        DataError: there are none, or fewer than ten, or their place cannot be read.
    """
    place = Path(config.path).expanduser()
    if not place.exists():
        raise DataError(explain(_PATH, str(place), "is not there", "give the place of the pictures on this machine"))
    if config.source == "folder":
        found = _files(place, _PATH, f"give a folder of picture files, or set {_SECTION}.source: parquet")
    else:
        found = _rows(place, _SECTION, config.image_column, skip_damaged=config.skip_damaged)
    if len(found.pictures) < _FEWEST:
        left = "".join(f"; left out: {item}" for item in found.left_out[:3])
        raise _too_few(len(found.pictures), found.place, left)
    return found


def read_found(found: Found, config: PublicConfig, image_shape: tuple[int, int, int], seed: int) -> PublicPictures:
    """The pictures, decoded, of the silos' channels and proportions.

    Args:
        found: result of `find_pictures`.
        config: configuration of the pictures.
        image_shape: shape (C, H, W) of the silos' images.
        seed: seed of the sample, where there are more pictures than are kept.

    Raises:
        DataError: some cannot be decoded, too few can, or the silos' images are neither grey nor of three colours.
    """
    channels, height, width = image_shape
    if channels not in (1, 3):
        constraint = f"the silos' images have {channels} channels, pictures have 1 (grey) or 3 (colour)"
        raise DataError(explain(_SECTION, config.path, constraint, f"set {_SECTION}: null"))
    zoom = 1 if are_large(image_shape) else 2
    size = (zoom * height, zoom * width)
    room = max(_FEWEST, _MOST_BYTES // (channels * math.prod(size)))
    wanted = room if config.limit is None else min(room, config.limit)
    index: npt.NDArray[np.int64] = np.arange(len(found.pictures))
    notes = found.notes
    if wanted < len(index):
        index = np.sort(numpy_generator(seed, "public", "limit").choice(index, wanted, replace=False))
        notes = (*notes, f"of {len(found.pictures):,} pictures {wanted:,} were drawn by the seed")
    form = PictureForm(size, channels, config.resize, config.background)
    pictures, names = [found.pictures[i] for i in index.tolist()], [found.names[i] for i in index.tolist()]
    decoded = decode(pictures, lambda i: names[i], form, skip_damaged=config.skip_damaged, section=_SECTION)
    if len(decoded.images) < _FEWEST:
        raise _too_few(len(decoded.images), found.place, "")
    used = replace(found, names=names, notes=notes)
    report = _report(used, decoded, form, "the server's own pictures, without labels")
    digest = _digest([pictures[i] for i in decoded.taken.tolist()])
    return PublicPictures(decoded.images, zoom, Path(config.path).name, digest, report)


def read_unlabelled(place: Path, form: PictureForm, fewest: int, key: str) -> tuple[Images, ReadingReport]:
    """All pictures in a place, decoded; labels, where there are any, are not read.

    Args:
        place: folder of picture files (of its folder train/ alone, where it has one) or with train.parquet, or a
            parquet file.
        form: form of the result.
        fewest: number of pictures that there must be, >= 1.
        key: option that names the place, for errors.

    Returns:
        (images, uint8 [N, C, H, W]; report on the reading).

    Raises:
        DataError: there are fewer, some cannot be decoded, or the place cannot be read.
    """
    if not place.exists():
        raise DataError(explain(key, str(place), "is not there", "give the place of the pictures on this machine"))
    if place.is_file() or has_files(place, _TRAIN):
        found = _rows(place, key, "image", skip_damaged=False)
    else:
        found = _files(place, key, "give a folder of picture files, or a parquet file")
    if len(found.pictures) < fewest:
        constraint = f"{len(found.pictures)} pictures were found there, there must be at least {fewest}"
        raise DataError(explain(key, found.place, constraint, "give more pictures"))
    decoded = decode(found.pictures, lambda i: found.names[i], form, section=key)
    return decoded.images, _report(found, decoded, form, "pictures without labels")


def _report(found: Found, decoded: Decoded, form: PictureForm, use: str) -> ReadingReport:
    """What was read of `found`, whose pictures were all to be decoded."""
    tally = Tally()
    for i, reason in decoded.damaged:
        tally.add("picture(s) that cannot be decoded", f"{found.names[i]} ({reason})")
    sizes = sorted(((w, h, count) for (w, h), count in decoded.sizes.items()), key=lambda size: (-size[2], size))
    channels, height, width = decoded.images.shape[1:]
    return ReadingReport(
        place=found.place,
        use=use,
        class_names=(),
        named=False,
        counts=(len(decoded.images),),
        image_shape=(channels, height, width),
        sizes=tuple(sizes),
        resize=form.resize,
        left_out=(*found.left_out, *tally.found()),
        notes=(*found.notes, *decoded.notes),
    )


def _files(place: Path, key: str, remedy: str) -> Found:
    if not place.is_dir():
        raise DataError(explain(key, str(place), "is no folder", remedy))
    notes: tuple[str, ...] = ()
    if (place / _TRAIN).is_dir():
        place, notes = place / _TRAIN, (f"of {place} the folder {_TRAIN}/ alone was read",)
    pictures, left_out = list_all_pictures(place, key)
    return Found(pictures, [path.relative_to(place).as_posix() for path in pictures], str(place), left_out, notes)


def _rows(place: Path, section: str, column: str, *, skip_damaged: bool) -> Found:
    key = f"{section}.path"
    files = split_files(place, _TRAIN, key) if place.is_dir() else [place]
    if not files:
        remedy = "give a parquet file, or a folder with train.parquet"
        raise DataError(explain(key, str(place), "has no train.parquet", remedy))
    pictures, names, left_out = image_rows(files, column, section, skip_damaged=skip_damaged)
    return Found(pictures, names, str(place), left_out)


def _digest(pictures: Sequence[bytes | Path]) -> str:
    whole = sha256()
    for picture in pictures:
        whole.update(sha256(picture.read_bytes() if isinstance(picture, Path) else picture).digest())
    return whole.hexdigest()


def _too_few(count: int, place: str, left: str) -> DataError:
    constraint = f"{count} pictures were found there, there must be at least {_FEWEST}{left}"
    remedy = "give more pictures, or mix in the prior `photographs` (synthesis.prior) instead"
    return DataError(explain(_PATH, place, constraint, remedy))
