# SPDX-License-Identifier: Apache-2.0
"""What a data source is, and how its splits are read and checked.

Class names and their order come from the training split, so that label k means the same in both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.choices import DATA_SOURCES
from fedcpsc.class_names import fault_of_class_names
from fedcpsc.data.persons import Persons
from fedcpsc.data.pixels import Picture
from fedcpsc.data.reading import LeftOut, first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable
from fedcpsc.registry import Entry, Registry
from fedcpsc.silo_config import DataConfig

__all__ = ["SOURCES", "DataSource", "Split", "SplitName", "has_split", "read_split"]

SplitName: TypeAlias = Literal["train", "test"]

_NAMED = 20  # classes in an error
_EMBEDDED = Path()  # what a source gets that needs no folder


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures that are not decoded yet.

    Attributes:
        pictures: N encoded pictures.
        labels: int64 [N], in [0, len(class_names)).
        class_names: K names in label order; numbers where the source has no names.
        place: place where they are, for errors.
        persons: id of the person behind each picture; None where each stands for itself, and in a test split, which
            nobody trains on.
        named: whether the source names its classes; where not, `class_names` are numbers.
        left_out: files and rows that were found and not taken.
        notes: sentences for the owner about how the source was read.
        record: function that names picture i; None where pictures are rows of one file, or paths.
    """

    pictures: Sequence[Picture]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    place: str
    persons: Persons | None = None
    named: bool = True
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    record: Callable[[int], str] | None = None

    def name_of(self, i: int) -> str:
        """What to call picture i in an error."""
        picture = self.pictures[i]
        if self.record is not None:
            return self.record(i)
        return str(picture) if isinstance(picture, Path) else f"{self.place}, row {i}"


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSource(Entry, ABC):
    """Finds and reads the pictures of a split.

    Attributes:
        needs_folder: whether it reads from `data.path`.
        fits_own_files: whether each silo may have a folder of its own in this form (`silos.partition.kind: own_files`).
    """

    needs_folder: bool = True
    fits_own_files: bool = False

    @abstractmethod
    def has_split(self, folder: Path, split: SplitName) -> bool:
        """Whether there is the split `split`; reads no picture.

        Args:
            folder: folder of the source; meaningless where it needs none.
            split: name of the split.
        """

    @abstractmethod
    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        """The split `split`, which is there; of the training split also the persons, where `config.persons` names them.

        Args:
            config: the run's data section.
            folder: folder of the source; meaningless where it needs none.
            split: name of the split.

        Raises:
            DataError: files that cannot be read, or that do not name every training record's person.
        """

    def place_of(self, split: SplitName) -> str:
        """What the folder must hold for the split `split` to be there, for errors."""
        return f"{split} split"


def has_split(config: DataConfig, root: Path | None, split: SplitName) -> bool:
    """Whether the source has the split `split`; reads nothing.

    Raises:
        DataError: where the source needs a folder and there is none.
    """
    source = SOURCES.get(config.source)
    return source.has_split(_folder_of(source, root), split)


def read_split(config: DataConfig, root: Path | None, split: SplitName) -> Split:
    """The split `split` of the source in `root` (None for sources that need no folder).

    Raises:
        DataError: where files are missing, cannot be read, hold labels that are no classes, or do not name every
            training record's person as configured.
    """
    source = SOURCES.get(config.source)
    folder = _folder_of(source, root)
    if not source.has_split(folder, split):
        constraint = f"has no {source.place_of(split)}"
        raise DataError(explain("data.path", str(root), constraint, "check data.path or FEDCPSC_DATA"))
    found = source.read(config, folder, split)
    _check_labels(found)
    return found if config.classes is None else _only(found, config.classes)


def _folder_of(source: DataSource, root: Path | None) -> Path:
    if not source.needs_folder:
        return _EMBEDDED
    if root is None:
        raise DataError(
            explain("data.path", None, "this source needs a folder", "set data.path or the environment's FEDCPSC_DATA")
        )
    if not root.is_dir():
        raise DataError(explain("data.path", str(root), "is no folder", "check data.path or FEDCPSC_DATA"))
    return root


def _only(split: Split, classes: tuple[str, ...]) -> Split:
    """The pictures of some classes, which get their numbers in that order.

    Raises:
        DataError: the source has no such class, or fewer than two are left.
    """
    unknown = [name for name in classes if name not in split.class_names]
    if unknown or len(set(classes)) < max(2, len(classes)):
        fault = f"is no class of {printable(split.place)}" if unknown else "must be two classes or more, each once"
        shown = f"use some of: {', '.join(split.class_names[:_NAMED])}"
        raise DataError(explain("data.classes", unknown[0] if unknown else list(classes), fault, shown))
    numbers = np.full(len(split.class_names), -1, np.int64)
    numbers[[split.class_names.index(name) for name in classes]] = np.arange(len(classes))
    labels = numbers[split.labels]
    kept = np.flatnonzero(labels >= 0)
    return replace(
        split,
        pictures=[split.pictures[i] for i in kept.tolist()],
        labels=labels[kept],
        class_names=classes,
        persons=None if split.persons is None else split.persons[kept],
        record=lambda i: split.name_of(int(kept[i])),
    )


def _check_labels(split: Split) -> None:
    classes = len(split.class_names)
    if classes < 2:
        raise DataError(
            explain("classes", classes, f"{printable(split.place)} must have at least 2", "check the labels")
        )
    if split.named and (fault := fault_of_class_names(split.class_names, classes)):
        raise DataError(f"{printable(split.place)}: {fault}")
    outside = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(outside):
        row = int(outside[0])
        others = outside[1:]
        also = f" (and so {first_of((f'row {i}' for i in others.tolist()), len(others), 3)})" if len(others) else ""
        constraint = f"{split.name_of(row)}: must be in [0, {classes}){also}"
        remedy = "fix the label" if not len(others) else "fix the labels, or check data.label_column"
        raise DataError(explain("label", int(split.labels[row]), constraint, remedy))


SOURCES = Registry(DATA_SOURCES, DataSource)  # type: ignore[type-abstract]  # its objects are of subclasses
