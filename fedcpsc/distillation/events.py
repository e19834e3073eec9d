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
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.metrics import MetricsLine

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["EventLog", "check_tensorboard", "scalars", "step_of"]

_ROWS, _COLUMNS = 5, 10
_GAP = 1  # pixels between two images of a grid


def check_tensorboard(asked_by: str = "output.tensorboard", otherwise: str = "set output.tensorboard=false") -> None:
    """Does nothing where the package is there.

    Args:
        asked_by: name of what asks for it, for the message.
        otherwise: advice to who does not want it.

    Raises:
        ConfigError: where it is not.
    """
    if find_spec("tensorboard") is None:
        remedy = f"pip install 'fedcpsc[tensorboard]', or {otherwise}"
        raise ConfigError(explain(asked_by, True, "the package tensorboard is not installed", remedy))


def step_of(line: MetricsLine, final_lines: int) -> int:
    """The step of a line: a round's number; the final fit's lines count on from the last round.

    Args:
        line: line of metrics.jsonl.
        final_lines: number of lines of the final fit so far, this one with them.
    """
    return line["round"] if line["phase"] == "round" else line["rounds"] + final_lines


def scalars(line: MetricsLine) -> dict[str, float]:
    """The numbers of a line by name.

    Args:
        line: line of metrics.jsonl.
    """
    found = {
        f"run/{key}": float(value)
        for key, value in line.items()
        if isinstance(value, int | float) and key not in ("round", "rounds")
    }
    for silo, figures in line.get("silos", {}).items():
        found[f"silos/answers/{silo}"] = float(figures["answers"])
        found[f"silos/answers_left/{silo}"] = float(figures["answers_left"])
        for key in ("reputation", "agreement"):
            if (value := figures.get(key)) is not None:
                found[f"silos/{key}/{silo}"] = float(cast(float, value))
    return found


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

    def line(self, line: MetricsLine, bank: AnswerBank | BankView) -> None:
        """Writes what the line says; for a round also its query images, evenly chosen."""
        in_round = line["phase"] == "round"
        self._final_lines += not in_round
        step = step_of(line, self._final_lines)
        writer = self._open(step)
        for name, value in scalars(line).items():
            writer.add_scalar(name, value, step)
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
