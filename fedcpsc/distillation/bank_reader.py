# SPDX-License-Identifier: Apache-2.0
"""Random batches of the answer bank, where the student is fitted.

On a CPU rows are read through the bank's memory map, so that memory does not grow with the bank. A GPU holds a copy:
images and targets lie in it, in room that doubles when it is full, and of a growing bank only what is new is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcpsc.data.images import to_pixels
from fedcpsc.distillation.fixed_features import FixedFeatures
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.transfers import uploaded

__all__ = ["BankReader", "Banked"]

_PIECE = 2**26  # bytes that are pinned at a time
_KEPT = 4  # arrays of rows whose copies are kept: those of the pool and of the newest answers, with room to spare


class Banked(Protocol):
    """What is fitted to: an `AnswerBank`, or a part of one."""

    @property
    def rows(self) -> int:
        """Images."""
        ...

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """uint8 [rows, C, H, W]."""
        ...

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """float32 [rows, K]."""
        ...

    def targets_set_since(self, moment: int) -> tuple[Sequence[slice], int]:
        """Rows whose targets were set after a moment, and the moment that is now; the first moment is 0."""
        ...


class BankReader:
    """Random batches of (pixels, targets) from the bank.

    Args:
        bank: bank that is read.
        device: device of the batches.
    """

    def __init__(self, bank: Banked, device: torch.device) -> None:
        self._bank = bank
        self.device = device
        self._images = _Grown(device)
        self._targets = _Grown(device)
        self._moment = 0
        self._rows: list[tuple[npt.NDArray[np.int64], Tensor]] = []
        self._features: dict[type[HeadedClassifier], FixedFeatures] = {}

    @property
    def rows(self) -> int:
        """Images in the bank."""
        return self._bank.rows

    @property
    def _on_device(self) -> bool:
        return self.device.type != "cpu"

    def refresh(self) -> None:
        """Call after answers were banked and before the next `batch`."""
        if not self._on_device or self._bank.rows == 0:
            return
        fresh = slice(self._targets.rows, self._bank.rows)
        self._images.write(self._bank.images, slice(self._images.rows, self._bank.rows))
        changed, self._moment = self._bank.targets_set_since(self._moment)
        for rows in joined([*changed, fresh]):
            self._targets.write(self._bank.targets, rows)

    def rows_on_device(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """The rows as a tensor on the device, int64 [n]; uploaded once for as long as the same array is asked for.

        Args:
            rows: numbers of rows; not to be changed afterwards.
        """
        for known, tensor in self._rows:
            if known is rows:
                return tensor
        self._rows = [*self._rows, (rows, uploaded(rows, self.device))][-_KEPT:]
        return self._rows[-1][1]

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels float32 [B, C, H, W] in [-1, 1] and targets float32 [B, K] of int64 rows [B]."""
        images = self._images.values[rows] if self._on_device else torch.from_numpy(self._bank.images[rows.numpy()])
        return to_pixels(images), self.targets(rows)

    def targets(self, rows: Tensor) -> Tensor:
        """Targets float32 [B, K] of int64 rows [B]."""
        return self._targets.values[rows] if self._on_device else torch.from_numpy(self._bank.targets[rows.numpy()])

    def fixed_features(self, network: HeadedClassifier) -> Tensor | None:
        """Features of every row that no weight changes, float16 [rows, D]; None where memory is too small for them.

        Args:
            network: network of which only the head learns.
        """
        kept = self._features.setdefault(type(network), FixedFeatures(self._bank, self.device))
        return kept.of_all(network)


class _Grown:
    """A copy of an array on the device, with room for more rows than it has."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rows = 0
        self.values = torch.empty(0, device=device)

    def write(self, source: npt.NDArray[np.generic], rows: slice) -> None:
        """Copies rows of `source`, which may lie beyond those that are there, in pieces of `_PIECE` bytes."""
        if rows.stop > len(self.values):
            room = max(rows.stop, 2 * len(self.values))
            held, given = self.values[: self.rows], torch.from_numpy(np.array(source[:1]))
            self.values = torch.empty(room, *source.shape[1:], dtype=given.dtype, device=self._device)
            if self.rows:
                self.values[: self.rows] = held
        step = max(1, _PIECE // max(1, source[:1].nbytes))
        for first in range(rows.start, rows.stop, step):
            part = np.array(source[first : min(first + step, rows.stop)])  # of a memory map, which is not pinned itself
            self.values[first : first + len(part)] = uploaded(part, self._device)
        self.rows = max(self.rows, rows.stop)


def joined(slices: Sequence[slice]) -> Iterator[slice]:
    """The same rows, each once, as few slices in ascending order.

    Args:
        slices: rows, with start and stop; those of no rows are left out.
    """
    first, stop = -1, -1
    for rows in sorted((part for part in slices if part.stop > part.start), key=lambda part: (part.start, part.stop)):
        if rows.start > stop:
            if stop > first:
                yield slice(first, stop)
            first, stop = rows.start, rows.stop
        stop = max(stop, rows.stop)
    if stop > first:
        yield slice(first, stop)
