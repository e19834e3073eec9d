# SPDX-License-Identifier: Apache-2.0
"""What every peer is given: the same student, the same number of steps, and no test image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcpsc.config import RunConfig
from fedcpsc.distillation.steps import make_committee
from fedcpsc.losses.distillation import soft_cross_entropy
from fedcpsc.models.classifier import Classifier
from fedcpsc.seeding import derive_seed

__all__ = ["Pool", "Task", "fit_share"]


@dataclass(frozen=True, eq=False)
class Task:
    """A student to be taught.

    Attributes:
        config: configuration of the run that the peer is compared with; its section `student` is the peer's too.
        image_shape: (C, H, W).
        classes: K.
        public: the server's own pictures, float32 [N, C, H, W] in [-1, 1]; None where it has none.
    """

    config: RunConfig
    image_shape: tuple[int, int, int]
    classes: int
    public: Tensor | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps of a fit, which are those of fedcpsc's final fit."""
        return self.config.final_steps

    @property
    def batch(self) -> int:
        """Images of a step."""
        return self.config.student.batch_size

    def seed(self, *names: str | int) -> int:
        """Seed of a random stream of the peer."""
        return derive_seed(self.config.seed, "peer", *names)

    def new_student(self) -> Classifier:
        """The student as fedcpsc begins with it, weight by weight."""
        alone = self.config.student.model_copy(update={"committee": 1})
        (member,) = make_committee(alone, self.classes, self.image_shape, self.config.seed, torch.device("cpu"))
        return member.network


class Pool:
    """Images with their targets, from which batches are drawn with replacement."""

    def __init__(self, seed: int) -> None:
        self._stream = torch.Generator().manual_seed(seed)
        self._images: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Takes in images [N, C, H, W] and their targets [N, K]."""
        self._images.append(images.detach())
        self._targets.append(targets.detach())

    def batches(self, steps: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of `size` images and targets."""
        images, targets = torch.cat(self._images), torch.cat(self._targets)
        for _ in range(steps):
            rows = torch.randint(len(images), (size,), generator=self._stream)
            yield images[rows], targets[rows]


def fit_share(
    student: Classifier, optimiser: torch.optim.Optimizer, pool: Pool, task: Task, epoch: int, epochs: int
) -> None:
    """One epoch's even share of the task's steps, on batches of the pool."""
    student.train()
    steps = task.steps * (epoch + 1) // epochs - task.steps * epoch // epochs
    for pixels, targets in pool.batches(steps, task.batch):
        optimiser.zero_grad(set_to_none=True)
        soft_cross_entropy(student(pixels), targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
