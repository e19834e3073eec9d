# SPDX-License-Identifier: Apache-2.0
"""An answer bank looked at: opened for reading alone, also while a run goes on writing it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedcpsc.errors import BankError, explain
from fedcpsc.label_sets import LabelSets
from fedcpsc.late_numpy import np, npt
from fedcpsc.runs.bank_index import (
    IMAGES,
    ORIGINS,
    PSEUDO_LABELS,
    TARGETS,
    BankIndex,
    Floats,
    damaged,
)
from fedcpsc.runs.bank_journal import Batch, replay
from fedcpsc.runs.bank_sums import FilePart, check_sum
from fedcpsc.runs.journal_head import label_sets_of_head, origins_of_head
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE
from fedcpsc.runs.origins import Codes, origins_of

__all__ = ["BankView", "find_bank", "find_index", "map_rows", "read_bank"]

_RESTORE = "restore the folder from a backup"


class BankView(BankIndex):
    """What is committed.

    Attributes:
        images: images, uint8 [rows, C, H, W], memory-mapped.
        pseudo_labels: classes the images were made for, int64 [rows], memory-mapped; -1 for none.
        origins: codes of `origin_names`, uint8 [rows]; memory-mapped where the bank notes them.
        targets: soft targets, float32 [rows, K], memory-mapped; zeros where no answer has been aggregated yet.

    Raises:
        BankError: fewer images, labels, targets or answers are there than the journal says.
    """

    def __init__(
        self,
        folder: Path,
        image_shape: tuple[int, int, int],
        classes: int,
        silos: tuple[str, ...],
        batches: list[Batch],
        label_sets: LabelSets | None = None,
        origins: Sequence[str] | None = None,
    ) -> None:
        super().__init__(folder, image_shape, classes, silos, batches, label_sets, origins)
        self.images, self.targets = map_rows(folder, self.rows, image_shape, classes)
        self.pseudo_labels: npt.NDArray[np.int64] = _map(folder / PSEUDO_LABELS, np.int64, (self.rows,))
        self.origins: Codes = self._origins()
        self.check_answers()

    def _origins(self) -> Codes:
        """Codes of all rows.

        Raises:
            BankError: there are fewer, or one that means nothing.
        """
        if not self.notes_origins:
            return origins_of(self.pseudo_labels)
        codes: Codes = _map(self.folder / ORIGINS, np.uint8, (self.rows,))
        if self.rows and int(codes.max()) >= len(self.origin_names):
            raise damaged(self.folder / ORIGINS, "it holds codes that the journal's head does not name")
        return codes

    def map_answers(self, silo: str) -> Floats:
        """A silo's decoded answers in its own columns, float32 [rows, its columns], memory-mapped.

        Args:
            silo: name of a silo that has answered every image.

        Raises:
            BankError: fewer answers are there.
        """
        name, width = self._columns[silo]
        answers: Floats = _map(self.folder / name, np.float32, (self.rows, width))
        return answers

    def check_sums(self) -> bool:
        """Reads all that is committed and holds it against its checksums.

        Returns:
            Whether all of it has one; what earlier versions wrote has none.

        Raises:
            BankError: it is damaged; with the file's name.
        """
        lines = [line for batch in self.batches for line in batch.lines]
        for line in lines:
            if line.total is not None:
                check_sum(self.folder, line, self.data_of(line.silo, line.rows))
        return all(line.total is not None for line in lines)

    def data_of(self, silo: str | None, rows: slice) -> list[FilePart]:
        """Where the data of some rows lie, in the order they were written.

        Args:
            silo: name of the silo whose answers are wanted; None for the images and what they were made for.
            rows: rows of the bank.
        """
        if silo is None:
            sizes = {IMAGES: math.prod(self.image_shape), PSEUDO_LABELS: np.dtype(np.int64).itemsize}
            if self.notes_origins:
                sizes[ORIGINS] = np.dtype(np.uint8).itemsize
        else:
            name, width = self._columns[silo]
            sizes = {name: width * np.dtype(np.float32).itemsize}
        first, count = rows.start, rows.stop - rows.start
        return [FilePart(name, first * size, count * size) for name, size in sizes.items()]


def find_bank(run_dir: Path, excluded: Collection[str] = ()) -> BankView | None:
    """The bank in a run's folder; None where the folder has none.

    Args:
        run_dir: folder of the run.
        excluded: names of silos that are left out (`aggregation.exclude`).

    Raises:
        BankError: it is damaged.
    """
    folder = run_dir / BANK_FOLDER
    if not (folder / JOURNAL_FILE).exists():
        return None
    bank = read_bank(folder)
    bank.leave_out(excluded)
    return bank


def find_index(run_dir: Path, excluded: Collection[str] = ()) -> BankIndex | None:
    """What the journal in a run's folder says, none of its images and answers opened; None where it has no bank.

    Args:
        run_dir: folder of the run.
        excluded: names of silos that are left out (`aggregation.exclude`).

    Raises:
        BankError: the journal is damaged, or a file is shorter than it says.
    """
    folder = run_dir / BANK_FOLDER
    if not (folder / JOURNAL_FILE).exists():
        return None
    index = BankIndex(*_read_journal(folder))
    index.check_rows()
    index.check_answers()
    index.leave_out(excluded)
    return index


def read_bank(folder: Path) -> BankView:
    """Opens the bank in `folder` without writing a byte.

    Raises:
        BankError: it is not there, or damaged.
    """
    return BankView(*_read_journal(folder))


class _Journal(NamedTuple):
    """What a bank is opened with, in the order of its arguments."""

    folder: Path
    image_shape: tuple[int, int, int]
    classes: int
    silos: tuple[str, ...]
    batches: list[Batch]
    label_sets: LabelSets | None
    origins: Sequence[str] | None


def _read_journal(folder: Path) -> _Journal:
    journal = folder / JOURNAL_FILE
    try:
        text = journal.read_bytes()
    except OSError as error:
        remedy = "give the folder of a run that keeps its bank"
        raise BankError(explain("bank", str(folder), f"cannot be read ({error.strerror})", remedy)) from error
    head, batches = replay(journal, text[: text.rfind(b"\n") + 1])
    try:
        channels, height, width = (int(size) for size in head["image_shape"])
        silos, classes = tuple(str(silo) for silo in head["silos"]), int(head["classes"])
        sets = label_sets_of_head(head, classes, len(silos))
        origins = origins_of_head(head)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BankError(explain("journal", str(journal), f"is damaged ({error!r})", _RESTORE)) from error
    return _Journal(folder, (channels, height, width), classes, silos, batches, sets, origins)


def map_rows(
    folder: Path, rows: int, image_shape: tuple[int, int, int], classes: int
) -> tuple[npt.NDArray[np.uint8], Floats]:
    """The first `rows` images uint8 [rows, C, H, W] and targets float32 [rows, K] of a bank, memory-mapped.

    Raises:
        BankError: fewer are there.
    """
    images = _map(folder / IMAGES, np.uint8, (rows, *image_shape))
    return images, _map(folder / TARGETS, np.float32, (rows, classes))


def _map(path: Path, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if shape[0] == 0:
        return np.zeros(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", shape=shape)
    except (OSError, ValueError) as error:
        raise BankError(
            explain("bank", str(path), f"is missing or shorter than its journal says ({error})", _RESTORE)
        ) from error
