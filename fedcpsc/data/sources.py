# SPDX-License-Identifier: Apache-2.0
"""Labelled images from the configured source: what is trained on, and what is held out to measure with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.config import RunConfig
from fedcpsc.data.decode import PictureForm, decode
from fedcpsc.data.images import ImageSet
from fedcpsc.data.persons import Persons, persons_and_classes
from fedcpsc.data.readers.source import Split, has_split, read_split
from fedcpsc.data.reading import ReadingReport, Tally
from fedcpsc.errors import DataError, explain
from fedcpsc.seeding import numpy_generator
from fedcpsc.silo_config import DataConfig

__all__ = ["as_images", "data_root", "evaluation_images", "held_out", "limited", "load_evaluation", "load_train"]

Index = npt.NDArray[np.int64]


def load_train(config: DataConfig, seed: int) -> ImageSet:
    """The training images; they share no record with `load_evaluation` of the same configuration and seed.

    Where a column, folders or a file name persons, the two share no person of the training split either. Invented ones
    (`blocks`) belong to simulated silos and are not set here.

    Args:
        config: configuration of the images: where they are and what to make of them.
        seed: seed of the held-out split, where the source has none, and of the draw of `train_limit` images.

    Raises:
        DataError: where the source cannot be read as configured.
    """
    root = data_root(config)
    split = read_split(config, root, "train")
    index, _ = _validation_split(config, split, _train_index(config, root, split, seed), seed)
    return as_images(split, limited(index, config.train_limit, seed, "train"), config, "images to train on")


def load_evaluation(config: DataConfig, seed: int) -> ImageSet | None:
    """The held-out images: the source's test split, else a stratified share of its training split.

    With `config.validation` it is so many training images instead, which then belong to no silo; the test split stays
    unread. None where the source has neither (every silo has files of its own, and nobody holds common test images).

    Raises:
        DataError: where the source cannot be read as configured.
    """
    root = data_root(config)
    if config.validation:
        split = read_split(config, root, "train")
        _, index = _validation_split(config, split, _train_index(config, root, split, seed), seed)
        split = _reported_with_training(split)
    elif has_split(config, root, "test"):
        split = read_split(config, root, "test")
        index = np.arange(len(split.labels))
    elif has_split(config, root, "train"):
        split = read_split(config, root, "train")
        _, index = held_out(split.labels, config.test_share, seed, split.persons)
        split = _reported_with_training(split)
    else:
        return None
    return as_images(split, limited(index, config.test_limit, seed, "test"), config, "held-out images")


def evaluation_images(config: RunConfig) -> ImageSet | None:
    """`load_evaluation` of a run; None where the run measures on no images.

    Raises:
        DataError: where the source cannot be read as configured.
    """
    return load_evaluation(config.data, config.seed) if config.evaluation.held_out else None


def data_root(config: DataConfig) -> Path | None:
    """The source's folder: `data.path`, else `$FEDCPSC_DATA`; None where neither is set."""
    text = config.path or os.environ.get("FEDCPSC_DATA")
    return Path(text).expanduser() if text else None


def _reported_with_training(split: Split) -> Split:
    """A training split of which a part is held out: what was left out of it is reported with the training images."""
    return replace(split, left_out=(), notes=())


def _train_index(config: DataConfig, root: Path | None, split: Split, seed: int) -> Index:
    """The records of the training split that are not held out for the test."""
    if has_split(config, root, "test"):
        return np.arange(len(split.labels))
    return held_out(split.labels, config.test_share, seed, split.persons)[0]


def _validation_split(config: DataConfig, split: Split, index: Index, seed: int) -> tuple[Index, Index]:
    """Splits `index` into (training, validation), both in order; whole persons where the split has them."""
    count = config.validation
    rng = numpy_generator(seed, "data", "validation")
    if split.persons is None or count == 0:
        order, aside = rng.permutation(index), count
    else:
        names, number, sizes = np.unique(split.persons[index], return_inverse=True, return_counts=True)
        drawn = rng.permutation(len(names))
        place = np.empty(len(names), np.int64)
        place[drawn] = np.arange(len(names))
        order = index[np.argsort(place[number], kind="stable")]  # the persons' records together, persons as drawn
        ends = np.cumsum(sizes[drawn])
        cut = min(int(np.searchsorted(ends, count)), len(ends) - 1)
        aside = int(ends[cut])  # to the end of the person it cuts through
    if max(aside, count) >= len(index):
        whole = "" if split.persons is None else " and leave a whole person"
        constraint = f"must be less than the {len(index)} training images{whole}"
        raise DataError(explain("data.validation", count, constraint, "lower it"))
    return np.sort(order[aside:]), np.sort(order[:aside])


def held_out(labels: Index, share: float, seed: int, persons: Persons | None = None) -> tuple[Index, Index]:
    """Splits 0..N-1 into (training, held-out), the held-out part being `share` of each class, rounded.

    Args:
        labels: int64 [N], class of each record.
        share: part of each class to hold out, in (0, 1).
        seed: decides which records.
        persons: id of each record's person; whole persons are then held out, so many of each class, where a person's
            class is its most frequent one. None splits single records.

    Raises:
        DataError: where one part would be empty.
    """
    units, number, what = labels, np.arange(len(labels)), "images"
    if persons is not None:
        number, units, _ = persons_and_classes(persons, labels)
        what = "persons"
    rng = numpy_generator(seed, "data", "held-out")
    mask = np.zeros(len(units), bool)
    for k in np.unique(units):
        members = rng.permutation(np.flatnonzero(units == k))
        mask[members[: round(share * len(members))]] = True
    if mask.all() or not mask.any():
        raise DataError(
            explain("data.test_share", share, f"leaves one part of {len(units)} {what} empty", f"use more {what}")
        )
    return np.flatnonzero(~mask[number]), np.flatnonzero(mask[number])


def as_images(split: Split, index: Index, config: DataConfig, use: str) -> ImageSet:
    """The records at `index`, decoded, with their persons, and the report on them.

    Args:
        split: split of a source.
        index: numbers of the records.
        config: what to make of the pictures.
        use: what they are for, for the report.

    Raises:
        DataError: where pictures cannot be decoded as configured.
    """
    side = config.image_size
    form = PictureForm(None if side is None else (side, side), config.channels, config.resize, config.background)
    pictures = [split.pictures[i] for i in index]
    found = decode(pictures, lambda i: split.name_of(int(index[i])), form, skip_damaged=config.skip_damaged)
    taken, tally = index[found.taken], Tally()
    for i, reason in found.damaged:
        tally.add("picture(s) that cannot be decoded", f"{split.name_of(int(index[i]))} ({reason})")
    labels = split.labels[taken]
    channels, height, width = found.images.shape[1:]
    sizes = sorted(((w, h, count) for (w, h), count in found.sizes.items()), key=lambda size: (-size[2], size))
    report = ReadingReport(
        place=split.place,
        use=use,
        class_names=split.class_names,
        named=split.named,
        counts=tuple(np.bincount(labels, minlength=len(split.class_names)).tolist()),
        image_shape=(channels, height, width),
        sizes=tuple(sizes),
        resize=config.resize,
        left_out=(*split.left_out, *tally.found()),
        notes=(*split.notes, *found.notes),
    )
    return ImageSet(
        found.images,
        labels,
        len(split.class_names),
        persons=None if split.persons is None else split.persons[taken],
        class_names=split.class_names if split.named else None,
        reading=report,
    )


def limited(index: Index, limit: int | None, seed: int, name: str) -> Index:
    """At most `limit` of `index`, drawn by the seed's stream `name`, in their order."""
    if limit is None or limit >= len(index):
        return index
    return np.sort(numpy_generator(seed, "data", f"{name}_limit").choice(index, limit, replace=False))
