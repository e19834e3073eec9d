# SPDX-License-Identifier: Apache-2.0
"""TensorBoard event files beside metrics.jsonl: its figures as curves, and each round's query images."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ConfigError, explain
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.metrics import MetricsLine

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["EventLog", "check_tensorboard"]

_ROWS, _COLUMNS = 5, 10
_GAP = 1  # pixels between two images of a grid


def check_tensorboard() -> None:
    """Does nothing where the package is there.

    Raises:
        ConfigError: where it is not.
    """
    if find_spec("tensorboard") is None:
        remedy = "pip install 'fedcpsc[tensorboard]', or set output.tensorboard=false"
        raise ConfigError(explain("output.tensorboard", True, "the package tensorboard is not installed", remedy))


class EventLog:
    """Takes each line of metrics.jsonl. A round's step is its number; the final fit's lines count on from the last.

    Args:
        folder: folder of the event files; made with the first line.
        resumed: an earlier attempt may have left events there: those from this one's first step on are purged.
    """

    def __init__(self, folder: Path, *, resumed: bool) -> None:
        self._folder = folder
        self._resumed = resumed
        self._writer: SummaryWriter | None = None
        self._final_lines = 0

    def line(self, line: MetricsLine, bank: AnswerBank) -> None:
        """Writes what the line says; for a round also its query images, evenly chosen."""
        in_round = line["phase"] == "round"
        self._final_lines += not in_round
        step = line["round"] if in_round else line["rounds"] + self._final_lines
        writer = self._open(step)
        for key, value in line.items():
            if isinstance(value, int | float) and key not in ("round", "rounds"):
                writer.add_scalar(f"run/{key}", float(value), step)
        for silo, figures in line.get("silos", {}).items():
            writer.add_scalar(f"silos/answers/{silo}", float(figures["answers"]), step)
            writer.add_scalar(f"silos/answers_left/{silo}", float(figures["answers_left"]), step)
            for key in ("reputation", "agreement"):
                if (value := figures.get(key)) is not None:
                    writer.add_scalar(f"silos/{key}/{silo}", float(cast(float, value)), step)
        batches = bank.round_batches(line["round"] - 1) if in_round else []
        if batches:
            rows = np.arange(batches[0].first, batches[-1].first + batches[-1].count)
            chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS * _COLUMNS)).astype(np.int64)]
            writer.add_image("queries", _grid(bank.images[chosen]), step)
        writer.flush()

    def close(self) -> None:
        """Ends the file, if one was begun."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional extra

            self._writer = SummaryWriter(str(self._folder), purge_step=step if self._resumed else None)
        return self._writer


def _grid(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [N, C, H, W] -> one picture uint8 [C, rows * (H + gap), columns * (W + gap)], filled row by row."""
    _, channels, height, width = images.shape
    cells = np.full((_ROWS * _COLUMNS, channels, height + _GAP, width + _GAP), 127, np.uint8)
    cells[: len(images), :, :height, :width] = images
    cells = cells[: -(-len(images) // _COLUMNS) * _COLUMNS]
    rows = len(cells) // _COLUMNS
    tiled = cells.reshape(rows, _COLUMNS, channels, height + _GAP, width + _GAP).transpose(2, 0, 3, 1, 4)
    return tiled.reshape(channels, rows * (height + _GAP), _COLUMNS * (width + _GAP))
