# SPDX-License-Identifier: Apache-2.0
"""Each simulated silo's private images: dealt from one source, or the silo's own files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from fedcpsc.config import RunConfig
from fedcpsc.data.class_sets import own_classes
from fedcpsc.data.images import ImageSet
from fedcpsc.data.partition import partition
from fedcpsc.data.persons import invented_persons
from fedcpsc.data.readers.source import SOURCES, Split, read_split
from fedcpsc.data.set_aside import set_aside
from fedcpsc.data.sources import as_images, data_root, limited, load_train
from fedcpsc.errors import ConfigError, DataError, explain

__all__ = ["images_of_silos", "iterate_silo_images", "load_silo_train", "parts_of_silos"]


def load_silo_train(config: RunConfig, silo: int) -> ImageSet:
    """The private training images of silo `silo`, in [0, silos.count), without those set aside (`silos.held_out`).

    With `data.persons` every image has its person, who is in no other simulated silo. Whether one person is in the own
    files of two silos cannot be seen.

    Own files lie in `<data.path>/<silo>/`, as `train.parquet` or `train/<class>/`; at most `train_limit` are used. No
    other silo's folder is read, so this works on the owner's machine; that all silos name the same classes in the same
    order is then for the owners to agree on.

    Raises:
        ConfigError, DataError: where the source cannot be read or dealt as configured.
    """
    _check_number(config, silo)
    if config.silos.partition.kind == "own_files":
        return _parts(config, _own_images(config, silo, _own_splits(config, [silo])))[0]
    return next(islice(iterate_silo_images(config), silo, None))


def iterate_silo_images(config: RunConfig) -> Iterator[ImageSet]:
    """`load_silo_train` of every silo in turn, reading the source once.

    Raises:
        ConfigError, DataError: where the source cannot be read or dealt as configured, or silos' own files number their
            classes differently.
    """
    for _, train, _ in parts_of_silos(config, range(config.silos.count)):
        yield train


def _dealt(config: RunConfig) -> Iterator[ImageSet]:
    """Each silo's share of one source, whole."""
    whole = load_train(config.data, config.seed)
    persons = config.data.persons
    dealing, silos = config.silos.partition, config.silos
    parts = partition(whole.labels, dealing, silos.parts, config.seed, whole.persons, whole.class_names)
    for silo, part in enumerate(parts[: silos.count]):
        images = whole.subset(part)
        if persons is not None and persons.kind == "blocks":
            images = replace(images, persons=invented_persons(len(images), persons.size, silo))
        yield own_classes(images, silo, only_present=True) if config.silos.label_sets == "own" else images


def images_of_silos(config: RunConfig, silos: Collection[int]) -> Iterator[tuple[int, ImageSet]]:
    """Number and `load_silo_train` of some silos; arguments and errors as for `parts_of_silos`."""
    yield from ((silo, train) for silo, train, _ in parts_of_silos(config, silos))


def parts_of_silos(config: RunConfig, silos: Collection[int]) -> Iterator[tuple[int, ImageSet, ImageSet | None]]:
    """Number, training images and images set aside of some silos; no other silo's own files are read.

    Dealt images are dealt in all parts (`silos.parts`): a silo's share does not depend on which silos are asked for.

    Args:
        config: configuration of the run.
        silos: numbers of the silos, each in [0, silos.count).

    Raises:
        ConfigError, DataError: as `iterate_silo_images`.
    """
    for silo in silos:
        _check_number(config, silo)
    if config.silos.partition.kind == "own_files":
        splits = _own_splits(config, sorted(silos))
        for silo in splits:
            yield silo, *_parts(config, _own_images(config, silo, splits))
    elif silos:
        yield from ((silo, *_parts(config, images)) for silo, images in enumerate(_dealt(config)) if silo in silos)


def _check_number(config: RunConfig, silo: int) -> None:
    if not 0 <= silo < config.silos.count:
        raise DataError(explain("silo", silo, f"must be in [0, {config.silos.count})", "check the number"))


def _parts(config: RunConfig, images: ImageSet) -> tuple[ImageSet, ImageSet | None]:
    return set_aside(images, config.silos.held_out, config.seed)


def _own_splits(config: RunConfig, silos: Iterable[int]) -> dict[int, Split]:
    """These silos' training splits under `<path>/<silo>/`, none decoded yet."""
    root = data_root(config.data)
    if not SOURCES.get(config.data.source).fits_own_files:
        fitting = " or ".join(source.name for source in SOURCES.documented() if source.fits_own_files)
        constraint = f"silos have own files only as {fitting}"
        raise ConfigError(explain("data.source", config.data.source, constraint, "use one of them"))
    if config.data.persons is not None and config.data.persons.kind == "blocks":
        constraint = "invents persons for simulated silos, and an owner's files hold records of real ones"
        remedy = "name the persons by column, folder or file, or leave data.persons null"
        raise ConfigError(explain("data.persons.kind", "blocks", constraint, remedy))
    if root is None:
        raise DataError(
            explain("data.path", None, "own_files needs a folder", "set data.path or the environment's FEDCPSC_DATA")
        )
    return {silo: read_split(config.data, root / str(silo), "train") for silo in silos}


def _own_images(config: RunConfig, silo: int, splits: dict[int, Split]) -> ImageSet:
    """Silo `silo`'s images; with the federation's label sets, checked to mean what the labels of all `splits` mean."""
    index = limited(np.arange(len(splits[silo].labels)), config.data.train_limit, config.seed, f"train_{silo}")
    if config.silos.label_sets == "own":
        images = as_images(splits[silo], index, config.data, f"images of silo {silo} to train on")
        return own_classes(images, silo, only_present=False)
    names = max((split.class_names for split in splits.values()), key=len)
    for other, split in splits.items():
        if split.class_names != names[: len(split.class_names)]:
            raise DataError(
                explain(
                    "classes",
                    split.class_names,
                    f"silo {other} numbers its classes otherwise than another silo ({', '.join(names)})",
                    "name all classes in every silo (an empty folder, or the parquet file's ClassLabel names), or let"
                    " each teacher know its own: silos.label_sets: own",
                )
            )
    images = as_images(splits[silo], index, config.data, f"images of silo {silo} to train on")
    named = all(split.named for split in splits.values())
    return replace(images, classes=len(names), class_names=names if named else None)
