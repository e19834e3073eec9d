# SPDX-License-Identifier: Apache-2.0
"""Folders that timm wrote: the network is built with timm's own options, and its preparation is followed or told."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.own_models import answers_of, images, own_softmax

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognise import Hints, recognise

HALF_OF_THREE = Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
CONSTANTS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def written(folder, options, prepared=None, name="test_resnet", built=None):
    """A folder as timm writes it, and its network."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=3, **(options if built is None else built)).eval()
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    prepared = CONSTANTS | {"input_size": [3, 48, 48], "crop_pct": 1.0} | (prepared or {})
    tree = {"architecture": name, "label_names": ["a", "b", "c"], "model_args": options, "pretrained_cfg": prepared}
    (folder / "config.json").write_text(json.dumps(tree))
    return network


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {"global_pool": "max"}),
        ("test_resnet", {"act_layer": "silu", "num_classes": 3}),
        ("test_vit", {"img_size": 48, "act_layer": "relu"}),
    ],
)
def test_options_that_change_no_tensor_are_followed_where_it_is_adopted_and_opened(name, options, tmp_path):
    built = {key: value for key, value in options.items() if key != "num_classes"}
    network = written(tmp_path / "model", options, name=name, built=built)
    found = recognise(tmp_path / "model")
    (said,) = [note for note in found.notes if "model_args" in note]
    assert all(f"{key}={value!r}" in said for key, value in options.items())
    given = images((3, 48, 48), 3)
    np.testing.assert_allclose(answers_of(found, tmp_path / "silo", given), own_softmax(network, given), atol=1e-5)


def test_the_pooling_of_the_pretrained_configuration_is_followed_as_timm_does(tmp_path):
    network = written(tmp_path / "model", {}, {"global_pool": "max"}, built={"global_pool": "max"})
    given = images((3, 48, 48), 3)
    answers = answers_of(recognise(tmp_path / "model"), tmp_path / "silo", given)
    np.testing.assert_allclose(answers, own_softmax(network, given), atol=1e-5)


def test_weights_are_adopted_again_with_their_options(tmp_path):
    network = written(tmp_path / "model", {"global_pool": "max"})
    (tmp_path / "weights").write_bytes(recognise(tmp_path / "model").weights)
    found = recognise(tmp_path / "weights", Hints(architecture="timm/test_resnet", image_shape=(3, 48, 48)))
    given = images((3, 48, 48), 3)
    mean, std = CONSTANTS["mean"], CONSTANTS["std"]
    answers = answers_of(found, tmp_path / "silo", given, normalisation={"mean": mean, "std": std})
    np.testing.assert_allclose(answers, own_softmax(network, given), atol=1e-5)


def test_weights_with_options_of_timms_are_no_other_librarys(tmp_path):
    written(tmp_path / "model", {"global_pool": "max"}, name="resnet18")
    (tmp_path / "weights").write_bytes(recognise(tmp_path / "model").weights)
    with pytest.raises(ManifestError, match=r"built by timm with global_pool.*is torchvision's; name .*timm/NAME"):
        recognise(tmp_path / "weights", Hints(architecture="resnet18", image_shape=(3, 48, 48)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"checkpoint_path": "elsewhere.pth"}, "checkpoint_path.*loads something"),
        ({"pretrained": True}, "pretrained.*loads something"),
        ({"features_only": True}, "features_only.*something else than a classifier"),
        ({"no_such_option": 1}, "timm cannot build test_resnet with them .*upgrade timm"),
        (["global_pool"], "must be a JSON object"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options, told, tmp_path):
    written(tmp_path / "model", options, built={})
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "model")


def test_what_is_said_against_the_folder_is_told(tmp_path):
    written(tmp_path / "model", {})
    said = Hints(image_shape=(3, 64, 64), normalisation=HALF_OF_THREE, architecture="timm/test_resnet")
    assert recognise(tmp_path / "model", said).notes == (
        "warning: image shape 3x64x64 is taken as you say, although config.json says 3x48x48",
        "warning: normalisation mean 0.5,0.5,0.5, std 0.5,0.5,0.5 is taken as you say, although config.json says"
        " mean 0.485,0.456,0.406, std 0.229,0.224,0.225",
    )
    assert recognise(tmp_path / "model", Hints(image_shape=(3, 48, 48))).notes == ()
    with pytest.raises(ManifestError, match="'resnet18': config.json says timm/test_resnet; leave it out"):
        recognise(tmp_path / "model", Hints(architecture="resnet18"))


@pytest.mark.parametrize(
    ("prepared", "resize", "told"),
    [
        ({}, "crop", []),
        ({"crop_mode": "squash"}, "squash", []),
        ({"crop_mode": "border"}, "pad", ["borders of pictures were filled with the mean colour, and are white here"]),
        ({"crop_pct": 0.75}, "crop", ["the short side was scaled to 64, then the middle was cut out (48x48)"]),
        ({"crop_pct": 0.75, "crop_mode": "squash"}, "squash", ["pictures were squashed to 64x64, then the middle"]),
        ({"crop_pct": None}, "crop", ["the short side was scaled to 54"]),  # timm's default
        ({"interpolation": "bicubic"}, "crop", ["pictures were resized by bicubic interpolation"]),
    ],
)
def test_the_way_to_the_networks_size_is_timms_and_a_margin_is_told(prepared, resize, told, tmp_path):
    written(tmp_path / "model", {}, prepared)
    found = recognise(tmp_path / "model")
    assert found.resize == resize
    assert len(found.notes) == len(told)
    assert all(note.startswith(begins) for note, begins in zip(found.notes, told, strict=True))
