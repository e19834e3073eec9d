# SPDX-License-Identifier: Apache-2.0
"""What every teacher is to the gatekeeper: uint8 images in, probabilities out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import TeacherError, explain

__all__ = ["Floats", "Movable", "ShardTeacher", "Teacher", "WithOutputs", "checked"]

Floats = npt.NDArray[np.float32]


class Teacher(Protocol):
    """A private classifier. One thread at a time calls it.

    Attributes:
        classes: number K of outputs: of classes, and one more where the manifest says `none_class`.
        image_shape: (C, H, W).
    """

    classes: int
    image_shape: tuple[int, int, int]

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Probabilities, float32 [N, K], each row finite, in [0, 1] and summing to 1.

        Args:
            images: uint8 [N, C, H, W], N >= 1.

        Raises:
            TeacherError: where the model gives anything else.
        """
        ...


@runtime_checkable
class ShardTeacher(Teacher, Protocol):
    """K disjoint teachers; `predict` is their mean."""

    def predict_shards(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Each shard's class probabilities, float32 [T, N, K]; a broken shard's may be NaN.

        Args:
            images: uint8 [N, C, H, W], N >= 1.
        """
        ...


@runtime_checkable
class WithOutputs(Teacher, Protocol):
    """A teacher that also gives what its network gives, before it becomes probabilities."""

    def outputs(self, images: npt.NDArray[np.uint8]) -> Floats:
        """The network's outputs as they are, float32 [N, K].

        Args:
            images: uint8 [N, C, H, W], N >= 1.

        Raises:
            TeacherError: where the network fails.
        """
        ...


@runtime_checkable
class Movable(Teacher, Protocol):
    """A teacher whose network may answer on another device than the CPU."""

    def answer_on(self, device: str) -> bool:
        """Moves the network there; False where it cannot be moved.

        Args:
            device: name of the device, `cpu` or `cuda`.
        """
        ...


def checked(probabilities: Floats, count: int, classes: int) -> Floats:
    """`probabilities`, where they are.

    Raises:
        TeacherError: where they are not float32 [count, classes], finite, in [0, 1], rows summing to 1. The message
            holds no value.
    """
    shape = (count, classes)
    if probabilities.shape != shape or probabilities.dtype != np.float32:
        got = f"{probabilities.dtype}{list(probabilities.shape)}"
        raise TeacherError(explain("teacher output", got, f"must be float32{list(shape)}", "fix the teacher"))
    if not np.isfinite(probabilities).all():
        raise TeacherError(explain("teacher output", "NaN or inf", "must be finite", "fix the teacher's weights"))
    if probabilities.min() < -1e-5 or np.abs(probabilities.sum(1) - 1.0).max() > 1e-3:
        raise TeacherError(explain("teacher output", "no distribution", "rows must be >= 0, sum 1", "add a softmax"))
    return probabilities
