# SPDX-License-Identifier: Apache-2.0
"""Features of banked images that no weight can change: computed once, where the student sees the images as they are.

A network of which only the head learns (`scattering`) spends nearly all of a step on features that are always the
same. They are kept as float16 in memory, up to `_MOST` bytes; of a bank that needs more they are computed at each step.
"""

from __future__ import annotations

from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcpsc.data.images import to_pixels
from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.student_config import StudentConfig
from fedcpsc.transfers import uploaded

__all__ = ["FixedFeatures", "may_be_kept"]

_MOST = 2**32
_PIECE = 256  # images whose features are computed together


class _Images(Protocol):
    @property
    def rows(self) -> int: ...

    @property
    def images(self) -> npt.NDArray[np.uint8]: ...


def may_be_kept(network: Classifier, config: StudentConfig) -> TypeGuard[HeadedClassifier]:
    """Whether the network's features of an image are the same at every step.

    Args:
        network: network that is fitted.
        config: section `student` of the run's configuration: a view that is moved, mirrored, noised or mixed is another
            image at each step, and contrast compares two such views.
    """
    changed = (config.shift, config.flip, config.noise, config.mixup, config.cutmix, config.contrastive_weight)
    return isinstance(network, HeadedClassifier) and network.only_head_learns and not any(changed)


class FixedFeatures:
    """The features of a bank's images, row by row.

    Args:
        bank: bank of the images.
        device: device that they are computed and kept on.
    """

    def __init__(self, bank: _Images, device: torch.device) -> None:
        self._bank = bank
        self._device = device
        self._rows = 0
        self._values: Tensor | None = None

    def of_all(self, network: HeadedClassifier) -> Tensor | None:
        """Features of every row, float16 [rows, D]; None where they would fill more memory than `_MOST`.

        Args:
            network: network of which only the head learns; of one architecture at every call.
        """
        rows, size = self._bank.rows, network.feature_size
        if rows * size * 2 > _MOST:
            return None
        values = self._with_room_for(rows, size)
        with torch.no_grad():
            for first in range(self._rows, rows, _PIECE):
                part = slice(first, min(first + _PIECE, rows))
                values[part] = network.features(to_pixels(uploaded(self._bank.images[part], self._device)))
        self._rows = rows
        return values[:rows]

    def _with_room_for(self, rows: int, size: int) -> Tensor:
        """The array of features; where it is too small, in a new one that is twice as large."""
        if self._values is None or rows > len(self._values):
            room = max(rows, 2 * self._rows)
            grown = torch.empty(room, size, dtype=torch.float16, device=self._device)
            if self._values is not None:
                grown[: self._rows] = self._values[: self._rows]
            self._values = grown
        return self._values
