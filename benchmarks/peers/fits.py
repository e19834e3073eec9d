# SPDX-License-Identifier: Apache-2.0
"""fedcpsc's own final fit, for images and targets of whatever method."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.peers.silos import CountedSilos
from benchmarks.peers.task import Task
from fedcpsc.aggregation.rule import RULES
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.models.classifier import Classifier
from fedcpsc.runs.answer_bank import AnswerBank

__all__ = ["fitted", "fitted_to_answers"]

_BATCH = 1000


@dataclass(frozen=True, eq=False)
class _Held:
    """Images with targets, as `steps.fit` reads them."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float32]

    @property
    def rows(self) -> int:
        return len(self.images)


def fitted(task: Task, pixels: Tensor, targets: Tensor, stream: str) -> Classifier:
    """A new student, fitted to targets [N, K] of pixels [N, C, H, W] as fedcpsc's final fit does.

    Args:
        stream: name of the fit's random stream.
    """
    return _fitted(task, _Held(to_uint8(pixels).numpy(), targets.numpy().astype(np.float32)), stream)


def fitted_to_answers(silos: CountedSilos, task: Task) -> Classifier:
    """A new student, fitted to what a peer asked: fedcpsc's targets of these answers, and its final fit."""
    asked = silos.asked_before()
    counts = silos.class_counts if RULES.get(task.config.aggregation.rule).needs_class_reports else None
    memory = Path("/dev/shm")  # noqa: S108 - scratch alone; the bank syncs every write
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        bank = AnswerBank(Path(scratch), task.image_shape, task.classes, silos.names)
        for number, first in enumerate(range(0, len(asked.images), _BATCH)):
            images = asked.images[first : first + _BATCH]
            batch = bank.add_batch(number, images, np.full(len(images), -1))
            for name, answers in zip(silos.names, asked.answers, strict=True):
                bank.add_answers(batch.query_id, name, answers[first : first + _BATCH])
        TargetKeeper(bank, task.config.aggregation, counts).refresh()
        held = _Held(np.array(bank.images), np.array(bank.targets))
    return _fitted(task, held, "answers")


def _fitted(task: Task, held: _Held, stream: str) -> Classifier:
    config, device = task.config.student, torch.device("cpu")
    alone = config.model_copy(update={"committee": 1})
    (member,) = make_committee(alone, task.classes, task.image_shape, task.config.seed, device)
    rows, none = np.arange(held.rows), np.zeros(0, np.int64)
    seed = task.seed(stream, "fit")
    fit(member, config, BankReader(held, device), rows, none, task.steps, seed, cosine_from=(0, task.steps))
    return member.network
