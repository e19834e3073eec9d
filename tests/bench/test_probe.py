# SPDX-License-Identifier: Apache-2.0
"""The measuring script understands what an earlier revision's code returns, and measures what is configured."""

import numpy as np
import pytest
import torch
import torchvision

from fedcpsc.bench.probe import images_answered, open_silo
from fedcpsc.config import RunConfig
from fedcpsc.protocol.messages import AnswerForm, Query


@pytest.mark.parametrize("result", [{"answers_per_silo": 400}, {"queries_per_silo": 400}], ids=["this", "earlier"])
def test_the_answers_of_a_run_are_found_under_the_name_that_its_revision_gave_them(result):
    assert images_answered(result) == 400


def test_a_silo_whose_teacher_stands_on_public_weights_of_a_library_answers(tmp_path):
    """Before: the network's name was looked for in this project's registry alone."""
    network = torchvision.models.resnet18(num_classes=7)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(network.state_dict(), tmp_path / "public.pth")
    teachers = {"architecture": "torchvision/resnet18", "weights": str(tmp_path / "public.pth"), "frozen": True}
    config = RunConfig.model_validate({"teachers": {**teachers, "shift": 0}})
    gatekeeper, network = open_silo(config, 3, (1, 32, 32), tmp_path)
    images = np.zeros((2, 1, 32, 32), np.uint8)
    answer = gatekeeper.answer(Query("0" * 32, AnswerForm.PROBABILITIES, images))
    gatekeeper.close()
    assert answer.values.shape == (2, 3)
    assert isinstance(network, torch.nn.Module)
