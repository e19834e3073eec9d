"""An answer bank looked at: opened for reading alone, also while a run goes on writing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import BankError, explain
from fedcpsc.runs.answer_bank import Batch, replay

__all__ = ["BankView", "map_rows", "read_bank"]


@dataclass(frozen=True, eq=False)
class BankView:
    """What is committed.

    Attributes:
        silos: names.
        classes: K.
        image_shape: (C, H, W).
        batches: in the order they were asked.
        images: uint8 [rows, C, H, W], memory-mapped.
        targets: float32 [rows, K], memory-mapped; zeros where no answer has been aggregated yet.
    """

    silos: tuple[str, ...]
    classes: int
    image_shape: tuple[int, int, int]
    batches: tuple[Batch, ...]
    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float32]

    def answers_of(self, silo: str) -> int:
        """Images that the silo has answered."""
        return sum(batch.count for batch in self.batches if silo in batch.answered)


def read_bank(folder: Path) -> BankView:
    """Opens the bank in `folder` without writing a byte.

    Raises:
        BankError: it is not there, or damaged.
    """
    journal = folder / "journal.jsonl"
    try:
        text = journal.read_bytes()
    except OSError as error:
        remedy = "give the folder of a run that keeps its bank"
        raise BankError(explain("bank", str(folder), f"cannot be read ({error.strerror})", remedy)) from error
    head, batches = replay(journal, text[: text.rfind(b"\n") + 1])
    try:
        channels, height, width = (int(size) for size in head["image_shape"])
        silos, classes = tuple(str(silo) for silo in head["silos"]), int(head["classes"])
    except (KeyError, TypeError, ValueError) as error:
        remedy = "restore the folder from a backup"
        raise BankError(explain("journal", str(journal), f"is damaged ({error!r})", remedy)) from error
    rows = batches[-1].first + batches[-1].count if batches else 0
    shape = (channels, height, width)
    images, targets = map_rows(folder, rows, shape, classes)
    return BankView(silos, classes, shape, tuple(batches), images, targets)


def map_rows(
    folder: Path, rows: int, image_shape: tuple[int, int, int], classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The first `rows` images uint8 [rows, C, H, W] and targets float32 [rows, K] of a bank, memory-mapped.

    Raises:
        BankError: fewer are there.
    """
    images = _map(folder / "images.u8", np.uint8, (rows, *image_shape))
    return images, _map(folder / "targets.f32", np.float32, (rows, classes))


def _map(path: Path, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if shape[0] == 0:
        return np.zeros(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", shape=shape)
    except (OSError, ValueError) as error:
        remedy = "restore the folder from a backup"
        raise BankError(
            explain("bank", str(path), f"is missing or shorter than its journal says ({error})", remedy)
        ) from error
