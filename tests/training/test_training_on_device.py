# SPDX-License-Identifier: Apache-2.0
"""A teacher's training on a device that is not there, and the number format of its passes."""

import numpy as np
import pytest
import torch
from support.pretended_gpu import PRETENDED, pretended_gpu

from fedcpsc.data.images import ImageSet
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training import plain
from fedcpsc.training.plain import train_classifier
from fedcpsc.training.plan import PlainTraining, used_settings

IMAGES = ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8), np.arange(20) % 3, 3)
PLAN = {"width": 4, "epochs": 3, "batch_size": 8}


def test_a_training_waits_once_an_epoch():
    """To see whether it diverges."""
    with pretended_gpu() as waits:
        train_classifier(IMAGES, TeachersConfig(**PLAN), 1, "convnet", device=PRETENDED)
    assert waits.counts["scalar"] == 3, waits.where
    assert not [place for place in waits.where if "optimiser.step" in place or "random_shift" in place]


@pytest.mark.parametrize(
    ("asked", "device", "used"),
    [
        (None, "cpu", "float32"),
        (None, "meta", "bfloat16"),
        ("bfloat16", "cpu", "bfloat16"),
        ("float32", "meta", "float32"),
    ],
)
def test_passes_are_in_bfloat16_on_a_gpu_unless_the_configuration_says_otherwise(asked, device, used, monkeypatch):
    seen, usual = set(), plain.mixed_precision
    monkeypatch.setattr(plain, "mixed_precision", lambda place, format: seen.add(format) or usual(place, format))
    with pretended_gpu():
        train_classifier(IMAGES, TeachersConfig(**PLAN, precision=asked), 1, "convnet", device=torch.device(device))
    assert seen == {used}


def test_a_manifest_names_the_format_where_it_was_chosen_and_is_else_what_it_was():
    usual = used_settings(PlainTraining(), TeachersConfig(**PLAN))
    assert "precision" not in usual, "teachers that stand are not made again"
    assert used_settings(PlainTraining(), TeachersConfig(**PLAN, precision="float32")) == usual | {
        "precision": "float32"
    }
