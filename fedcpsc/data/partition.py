# SPDX-License-Identifier: Apache-2.0
"""Dealing one data set to simulated silos, by flwr-datasets' partitioners."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.data.class_sets import Holders, class_holders, deal_classes
from fedcpsc.data.persons import Persons, persons_and_classes
from fedcpsc.errors import ConfigError, DataError, explain
from fedcpsc.seeding import derive_seed, numpy_generator
from fedcpsc.silo_config import PartitionConfig

__all__ = ["partition"]

Index = npt.NDArray[np.int64]

_DRAWS = 20  # seeds tried for Dirichlet; the partitioner itself draws 11 times for each


def partition(
    labels: Index,
    config: PartitionConfig,
    silos: int,
    seed: int,
    persons: Persons | None = None,
    class_names: tuple[str, ...] | None = None,
) -> list[Index]:
    """Deals the records 0..N-1 to `silos` silos: disjoint, none left over, none empty, no person in two of them.

    - `iid`: equal shares of a shuffled deck.
    - `dirichlet`: each class is shared out in proportions drawn from Dirichlet(alpha, ..., alpha) (Yurochkin et al.
      2019, arXiv 1905.12022), drawn again until every silo has `min_size` images.
    - `shards`: the deck is sorted by class and cut; each silo gets at most `shards_per_silo` shards (McMahan et al.
      2017, arXiv 1602.05629).
    - `pathological`: classes are grouped at random, `classes_per_silo` to a group (the last may have fewer), and each
      silo holds one group; silos of the same group share its images evenly.
    - `class_sets`: each silo holds the classes of one set of names; silos that hold the same class share its images
      evenly.

    With `persons`, whole persons take the place of images in all of this, each with its most frequent class: shares are
    equal in persons, and `min_size` counts them.

    Args:
        labels: int64 [N].
        config: the way of dealing and its parameters; not `own_files`.
        silos: how many, >= 1.
        seed: decides everything random.
        persons: id of each record's person [N]; None deals single records.
        class_names: names of the classes, in the order of the labels, for `class_sets`; None where they have none.

    Returns:
        One sorted int64 array of record numbers for each silo.

    Raises:
        ConfigError: where the parameters contradict each other or the number of silos.
        DataError: where the data is too small for what is asked, or `pathological` or `class_sets` are to deal persons
            of several classes, whose silos would see more classes than promised.
    """
    if config.kind == "own_files":
        raise ConfigError(explain("partition.kind", config.kind, "deals nothing", "load each silo's own files"))
    holders = class_holders(config, silos, class_names) if config.kind == "class_sets" else None
    if persons is None:
        return _deal_units(labels, config, silos, seed, "images", holders)
    number, classes, mixed = persons_and_classes(persons, labels)
    if config.kind in ("pathological", "class_sets") and mixed:
        constraint = f"{mixed} of {len(classes)} persons have images of several classes and are dealt whole"
        raise DataError(explain("partition.kind", config.kind, constraint, "use iid, dirichlet or shards"))
    owner = np.empty(len(classes), np.int64)  # [P], the silo of each person
    for silo, part in enumerate(_deal_units(classes, config, silos, seed, "persons", holders)):
        owner[part] = silo
    records = np.argsort(owner[number], kind="stable")  # silo by silo, in order within each
    return np.split(records, np.cumsum(np.bincount(owner[number], minlength=silos))[:-1])


def _deal_units(
    labels: Index, config: PartitionConfig, silos: int, seed: int, what: str, holders: Holders | None
) -> list[Index]:
    """Deals `what`, images or persons, of the classes `labels`."""
    if silos > len(labels):
        raise DataError(
            explain(
                "silos.count", silos, f"there are only {len(labels)} training {what}", "use fewer silos or more data"
            )
        )
    # a shuffled deck: the IID partitioner cuts contiguous pieces, and files are often sorted by class
    deck = numpy_generator(seed, "partition", "deck").permutation(len(labels))
    keys = labels[deck]
    if config.kind == "pathological":
        keys = _class_groups(keys, config, silos, seed)
    pieces = _draw(keys, config, silos, seed, what) if holders is None else deal_classes(keys, holders, silos)
    parts = [np.sort(deck[piece]) for piece in pieces]
    if min(len(part) for part in parts) == 0 or len(np.unique(np.concatenate(parts))) != len(labels):
        raise DataError(
            explain("silos.count", silos, f"{config.kind} leaves a silo without {what}", "use fewer silos or more data")
        )
    return parts


def _draw(keys: Index, config: PartitionConfig, silos: int, seed: int, what: str) -> list[Index]:
    if config.kind == "dirichlet":
        return _draw_dirichlet(keys, config, silos, seed, what)
    from flwr_datasets.partitioner import (  # noqa: PLC0415 (seconds to import; only silo making needs it)
        IidPartitioner,
        PathologicalPartitioner,
        ShardPartitioner,
    )

    stream = derive_seed(seed, "partition", config.kind)
    partitioner: Any
    if config.kind == "iid":
        partitioner = IidPartitioner(num_partitions=silos)
    elif config.kind == "pathological":
        partitioner = PathologicalPartitioner(
            num_partitions=silos,
            partition_by="key",
            num_classes_per_partition=1,
            class_assignment_mode="deterministic",
            seed=stream,
        )
    else:
        size = math.ceil(len(keys) / (silos * config.shards_per_silo))  # so that no incomplete shard is dropped
        partitioner = ShardPartitioner(
            num_partitions=silos, partition_by="key", shard_size=size, keep_incomplete_shard=True, seed=stream
        )
    try:
        return _deal(partitioner, keys, silos)
    except ValueError as error:  # too few images of a class, or fewer shards than silos
        raise DataError(
            explain(
                "silos.count", silos, f"too many for {config.kind} over {len(keys)} {what}", "use fewer or more data"
            )
        ) from error


def _draw_dirichlet(keys: Index, config: PartitionConfig, silos: int, seed: int, what: str) -> list[Index]:
    if silos * config.min_size > len(keys):
        raise DataError(
            explain(
                "partition.min_size",
                config.min_size,
                f"{silos} silos of that size need {silos * config.min_size} {what}, there are {len(keys)}",
                f"use at most {len(keys) // silos}",
            )
        )
    from flwr_datasets.partitioner import DirichletPartitioner  # noqa: PLC0415

    for draw in range(_DRAWS):
        partitioner = DirichletPartitioner(
            num_partitions=silos,
            partition_by="key",
            alpha=config.alpha,
            min_partition_size=config.min_size,
            seed=derive_seed(seed, "partition", "dirichlet", draw),
        )
        try:
            return _deal(partitioner, keys, silos)
        except ValueError:  # its own attempts are used up
            continue
    raise DataError(
        explain(
            "partition.min_size",
            config.min_size,
            f"no draw of Dirichlet({config.alpha}) gives each of {silos} silos so many of {len(keys)} {what}",
            "lower it, raise alpha, or use fewer silos",
        )
    )


def _class_groups(keys: Index, config: PartitionConfig, silos: int, seed: int) -> Index:
    """The group of each record's class: classes in random order, cut into runs of `classes_per_silo`."""
    present, position = np.unique(keys, return_inverse=True)
    size = config.classes_per_silo
    if size > len(present):
        raise ConfigError(
            explain("partition.classes_per_silo", size, f"there are only {len(present)} classes", "lower it")
        )
    if size * silos < len(present):
        left = len(present) - size * silos
        enough = math.ceil(len(present) / silos)
        raise ConfigError(
            explain("partition.classes_per_silo", size, f"leaves {left} classes with no silo", f"use at least {enough}")
        )
    rank = numpy_generator(seed, "partition", "classes").permutation(len(present))
    groups: Index = rank[position] // size
    return groups


def _deal(partitioner: Any, keys: Index, silos: int) -> list[Index]:
    from datasets import Dataset  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each redraw warns; what matters is raised
        partitioner.dataset = Dataset.from_dict({"key": keys, "record": np.arange(len(keys))})
        return [np.asarray(partitioner.load_partition(i)["record"], np.int64) for i in range(silos)]
