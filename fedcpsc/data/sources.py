"""Labelled images from the configured source: what is trained on, and what is held out to measure with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.config import DataConfig, RunConfig
from fedcpsc.data.decode import decode
from fedcpsc.data.images import ImageSet
from fedcpsc.data.readers.source import Split, has_split, read_split
from fedcpsc.errors import DataError, explain
from fedcpsc.seeding import numpy_generator

__all__ = ["as_images", "data_root", "evaluation_images", "held_out", "limited", "load_evaluation", "load_train"]

Index = npt.NDArray[np.int64]


def load_train(config: DataConfig, seed: int) -> ImageSet:
    """The training images; they share no record with `load_evaluation` of the same configuration and seed.

    Args:
        config: where the images lie and what to make of them.
        seed: decides the held-out split, where the source has none, and which `train_limit` images are drawn.

    Raises:
        DataError: where the source cannot be read as configured.
    """
    root = data_root(config)
    split = read_split(config, root, "train")
    index, _ = _validation_split(config, _train_index(config, root, split, seed), seed)
    return as_images(split, limited(index, config.train_limit, seed, "train"), config)


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
        _, index = _validation_split(config, _train_index(config, root, split, seed), seed)
    elif has_split(config, root, "test"):
        split = read_split(config, root, "test")
        index = np.arange(len(split.labels))
    elif has_split(config, root, "train"):
        split = read_split(config, root, "train")
        _, index = held_out(split.labels, config.test_share, seed)
    else:
        return None
    return as_images(split, limited(index, config.test_limit, seed, "test"), config)


def evaluation_images(config: RunConfig) -> ImageSet | None:
    """`load_evaluation` of a run; None where the run is told to measure on none.

    Raises:
        DataError: where the source cannot be read as configured.
    """
    return load_evaluation(config.data, config.seed) if config.evaluation.held_out else None


def data_root(config: DataConfig) -> Path | None:
    """The source's folder: `data.path`, else `$FEDCPSC_DATA`; None where neither is set."""
    text = config.path or os.environ.get("FEDCPSC_DATA")
    return Path(text).expanduser() if text else None


def _train_index(config: DataConfig, root: Path | None, split: Split, seed: int) -> Index:
    """The records of the training split that are not held out for the test."""
    if has_split(config, root, "test"):
        return np.arange(len(split.labels))
    return held_out(split.labels, config.test_share, seed)[0]


def _validation_split(config: DataConfig, index: Index, seed: int) -> tuple[Index, Index]:
    """Splits `index` into (training, validation), both in order."""
    if config.validation >= len(index):
        constraint = f"must be less than the {len(index)} training images"
        raise DataError(explain("data.validation", config.validation, constraint, "lower it"))
    order = numpy_generator(seed, "data", "validation").permutation(index)
    return np.sort(order[config.validation :]), np.sort(order[: config.validation])


def held_out(labels: Index, share: float, seed: int) -> tuple[Index, Index]:
    """Splits 0..N-1 into (training, held-out), the held-out part being `share` of each class, rounded.

    Raises:
        DataError: where one part would be empty.
    """
    rng = numpy_generator(seed, "data", "held-out")
    mask = np.zeros(len(labels), bool)
    for k in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == k))
        mask[members[: round(share * len(members))]] = True
    if mask.all() or not mask.any():
        raise DataError(
            explain("data.test_share", share, f"leaves one part of {len(labels)} images empty", "use more images")
        )
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def as_images(split: Split, index: Index, config: DataConfig) -> ImageSet:
    """The records at `index`, decoded."""
    pictures = [split.pictures[i] for i in index]
    images = decode(pictures, lambda i: split.name_of(int(index[i])), config.image_size, config.channels)
    return ImageSet(images, split.labels[index], len(split.class_names))


def limited(index: Index, limit: int | None, seed: int, name: str) -> Index:
    """At most `limit` of `index`, drawn by the seed's stream `name`, in their order."""
    if limit is None or limit >= len(index):
        return index
    return np.sort(numpy_generator(seed, "data", f"{name}_limit").choice(index, limit, replace=False))
