# SPDX-License-Identifier: Apache-2.0
"""A resnet18 of three classes in each format that an owner may have it in: answers are its own softmax."""

import json

import numpy as np
import pytest
import torch
import torchvision
from support.own_models import CONSTANTS, answers_of, as_onnx, as_program, as_script, images, own_softmax

from fedcpsc.teachers.recognise import Hints, recognise


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=3).eval()


def written(network, form, folder, shape):
    """Path of the model in this format, and the words that its owner must say."""
    if form == "onnx":
        return as_onnx(network, folder / "model.onnx", shape), {}
    if form == "torch_export":
        return as_program(network, folder / "model.pt2", shape, free=False), {"allow_code": True}
    if form == "torchscript":
        return as_script(network, folder / "model.pt", shape), {"allow_code": True, "image_shape": shape}
    torch.save(network.state_dict(), folder / "model.pth")
    return folder / "model.pth", {"architecture": "resnet18", "image_shape": shape}


@pytest.mark.parametrize(
    ("form", "side"),
    [("onnx", 64), ("onnx", 224), ("torch_export", 64), ("torchscript", 64), ("torchvision", 64), ("torchvision", 224)],
)
def test_answers_are_the_models_own_softmax(form, side, network, tmp_path):
    shape = (3, side, side)
    path, words = written(network, form, tmp_path, shape)
    found = recognise(path, Hints(normalisation=CONSTANTS, **words))
    assert (found.kind, found.outputs, found.image_shape, found.missing) == (form, 3, shape, ())
    given = images(shape, 3)
    answers = answers_of(found, tmp_path / "silo", given)
    np.testing.assert_allclose(answers, own_softmax(network, given), atol=1e-4)


def test_a_hugging_face_folder_answers_as_its_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.logging.disable_progress_bar()
    settings = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.ResNetForImageClassification(settings).eval()
    network.save_pretrained(tmp_path / "model")
    constants = {"image_mean": CONSTANTS.mean, "image_std": CONSTANTS.std, "size": 64}
    (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(constants))
    found = recognise(tmp_path / "model")
    assert (found.kind, found.image_shape, found.missing) == ("huggingface", (3, 64, 64), ())
    given = images((3, 64, 64), 3)
    answers = answers_of(found, tmp_path / "silo", given)
    np.testing.assert_allclose(answers, own_softmax(lambda pixels: network(pixels).logits, given), atol=1e-4)
