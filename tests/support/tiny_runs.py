# SPDX-License-Identifier: Apache-2.0
"""Whole runs that take a second: over fake silos, or of the smoke configuration cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.fakes import brightness_probabilities

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.typed_yaml import validate

SMOKE = Path(__file__).parents[2] / "configs/smoke.yaml"
TINY_SMOKE = (  # overrides that make SMOKE a matter of seconds
    "teachers.epochs=1",
    "data.train_limit=200",
    "data.test_limit=50",
    "queries.answers_per_silo=40",
    "queries.rounds=2",
    "student.steps_per_round=2",
    "student.final_steps=4",
)


def tiny_config(**changes) -> RunConfig:
    """Two silos, 3 classes, 8x8 images; `changes` are named `section__key`."""
    tree = {
        "silos": {"count": 2},
        "queries": {"answers_per_silo": 120, "rounds": 4, "deadline_s": 0.2, "hello_timeout_s": 0.1},
        "synthesis": {"steps": 2, "batch_size": 16, "width": 4, "moments": [0.0, 0.5], "prior_share": 0.3},
        "student": {"width": 4, "steps_per_round": 4, "final_steps": 8, "batch_size": 16},
        "output": {"name": "test"},
        "runtime": {"device": "cpu", "threads": 1},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        tree.setdefault(section, {})[name] = value
    return validate(RunConfig, tree, "test")


def evaluation(count: int = 60, classes: int = 3, side: int = 8) -> ImageSet:
    """Held-out images whose true class is what the fake teachers say."""
    rng = np.random.default_rng(5)
    level = rng.integers(0, 256, (count, 1, 1, 1))
    images = np.clip(level + rng.integers(-20, 20, (count, 1, side, side)), 0, 255).astype(np.uint8)
    return ImageSet(images, brightness_probabilities(images, classes).argmax(1).astype(np.int64), classes)


def brightness_bank(folder: Path) -> AnswerBank:
    """A bank of two batches of 80 images, 8x8 and grey, with the targets of a teacher of 3 classes."""
    bank = AnswerBank(folder / "bank", (1, 8, 8), 3, ["a"])
    for number in range(2):
        images = np.random.default_rng(number).integers(0, 256, (80, 1, 8, 8)).astype(np.uint8)
        batch = bank.add_batch(number, images, np.zeros(80, np.int64))
        bank.set_targets(batch, brightness_probabilities(images, 3))
    return bank
