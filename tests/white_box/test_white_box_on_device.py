# SPDX-License-Identifier: Apache-2.0
"""White-box steps on a device that is not there: none waits for it."""

import numpy as np
import pytest
import torch
from support.pretended_gpu import PRETENDED, pretended_gpu
from support.tiny_white_box import tiny

from fedcpsc.data.images import ImageSet
from fedcpsc.models.registry import build_classifier
from fedcpsc.white_box.engine import Engine
from fedcpsc.white_box.run import accuracy

SHAPE, CLASSES = (1, 8, 8), 10


@pytest.mark.parametrize("quirks", [False, True])
def test_no_step_waits_for_the_device(quirks):
    with pretended_gpu() as waits:
        teacher = build_classifier("convnet", CLASSES, SHAPE, 4, seed=1)
        engine = Engine(tiny(reference_quirks=quirks), teacher, PRETENDED)
        waits.forget()
        generator, student = engine.round(torch.Generator(PRETENDED))
    assert generator.device == student.device == PRETENDED
    assert waits.total == 0, waits.where


def test_measuring_waits_once():
    images = ImageSet(np.zeros((1100, *SHAPE), np.uint8), np.zeros(1100, np.int64), CLASSES)
    with pretended_gpu() as waits:
        network = build_classifier("convnet", CLASSES, SHAPE, 4, seed=1).to(PRETENDED)
        waits.forget()
        accuracy(network, images)
    assert waits.counts == {"scalar": 1}, waits.where
