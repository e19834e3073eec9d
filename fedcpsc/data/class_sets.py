# SPDX-License-Identifier: Apache-2.0
"""Silos with classes of their own: images dealt by sets of class names, and labels of a silo's own classes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.data.images import ImageSet
from fedcpsc.errors import ConfigError, DataError, explain
from fedcpsc.silo_config import PartitionConfig

__all__ = ["Holders", "class_holders", "deal_classes", "own_classes"]

Index: TypeAlias = npt.NDArray[np.int64]
Holders: TypeAlias = list[list[int]]
"""The silos that hold each class, by its number."""


def class_holders(config: PartitionConfig, silos: int, class_names: tuple[str, ...] | None) -> Holders:
    """The silos that hold each class by `class_sets`.

    Args:
        config: the sets.
        silos: number of silos, >= 1; silo s has set s modulo their number.
        class_names: names of the classes in the order of their numbers; None where they have none.

    Raises:
        ConfigError: a set names no class of the data, or a class is in no set that a silo has.
    """
    if class_names is None:
        remedy = "use a source that names its classes"
        raise ConfigError(explain("partition.kind", "class_sets", "the source's classes have no names", remedy))
    sets = [config.class_sets[silo % len(config.class_sets)] for silo in range(silos)]
    for own in sets:
        unknown = [name for name in own if name not in class_names]
        if unknown or len(set(own)) < len(own):
            constraint = f"{unknown[0]!r} is no class of the data" if unknown else "names a class twice"
            raise ConfigError(explain("partition.class_sets", list(own), constraint, "fix the name"))
    holders = [[silo for silo, own in enumerate(sets) if name in own] for name in class_names]
    left = [name for name, holding in zip(class_names, holders, strict=True) if not holding]
    if left:
        remedy = "give it to a silo, or leave it out by data.classes"
        raise ConfigError(explain("partition.class_sets", left[0], "no silo holds this class", remedy))
    return holders


def deal_classes(keys: Index, holders: Holders, silos: int) -> list[Index]:
    """Record numbers for each silo: those of a class are cut evenly for the silos that hold it.

    Args:
        keys: class of each record, in the order in which they are dealt, int64 [N].
        holders: silos that hold each class.
        silos: number of silos, >= 1.
    """
    parts: list[list[Index]] = [[] for _ in range(silos)]
    for number, holding in enumerate(holders):
        for silo, part in zip(holding, np.array_split(np.flatnonzero(keys == number), len(holding)), strict=True):
            parts[silo].append(part)
    return [np.concatenate(part) if part else np.zeros(0, np.int64) for part in parts]


def own_classes(images: ImageSet, silo: int, *, only_present: bool) -> ImageSet:
    """The same images in the silo's own classes.

    Args:
        images: images with named classes.
        silo: number of the silo, for errors.
        only_present: whether classes without an image are left out; False where the silo's owner has named them.

    Raises:
        DataError: the classes have no names, or fewer than two are left.
    """
    if images.class_names is None:
        remedy = "use a source that names its classes, or silos.label_sets: federation"
        raise DataError(explain("silos.label_sets", "own", f"the classes of silo {silo} have no names", remedy))
    if not only_present:
        return images
    present = np.unique(images.labels)
    if len(present) < 2:
        remedy = "give it images of two, or use silos.label_sets: federation"
        raise DataError(explain("silos.label_sets", "own", f"silo {silo} has {len(present)} class(es)", remedy))
    names = tuple(images.class_names[k] for k in present)
    return replace(images, labels=np.searchsorted(present, images.labels), classes=len(names), class_names=names)
