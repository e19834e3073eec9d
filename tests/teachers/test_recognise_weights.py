# SPDX-License-Identifier: Apache-2.0
"""State dicts: read without running code, freed of wrappers' names, and held against the network that is named."""

import collections
import dataclasses
import os
import sys

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.own_models import CONSTANTS, HALF, Small, answers_of, images, own_softmax, silo_of

from fedcpsc.errors import ManifestError
from fedcpsc.models.libraries import TORCHVISION, Plan, skeleton
from fedcpsc.models.likeness import nearest
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.recognise import Hints, recognise

GREY = (1, 8, 8)
CONVNET = Hints(architecture="convnet", image_shape=GREY)


def convnet(seed=0):
    return build_classifier("convnet", 10, GREY, 6, seed=seed).eval()


def squeezenet(classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.squeezenet1_1(num_classes=classes).eval()


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=3).eval()


def test_a_network_of_this_project_says_its_width_and_classes_by_its_tensors(tmp_path):
    save_file(convnet().state_dict(), tmp_path / "weights")
    found = recognise(tmp_path / "weights", CONVNET)
    assert (found.kind, found.architecture, found.width, found.outputs) == ("torch", "convnet", 6, 10)
    assert (found.channels, found.probabilities, found.notes) == (1, False, ())
    assert found.weights == (tmp_path / "weights").read_bytes()
    given = images(GREY)
    answers = answers_of(found, tmp_path / "silo", given, normalisation=HALF)
    np.testing.assert_allclose(answers, own_softmax(convnet(), given, HALF), atol=1e-5)


@pytest.mark.parametrize("how", ["plain", "nested", "parallel", "compiled", "both", "old"])
def test_a_checkpoint_of_torch_save_becomes_safetensors_and_what_was_taken_off_is_told(how, tmp_path):
    state, path = convnet().state_dict(), tmp_path / "model.pth"
    if how in ("parallel", "both"):
        state = collections.OrderedDict((f"module.{key}", value) for key, value in state.items())
    if how in ("compiled", "both"):
        state = {f"_orig_mod.{key}": value for key, value in state.items()}
    tree = {"epoch": 7, "state_dict": state, "optimizer": {"state": {}, "lr": 0.1}} if how == "nested" else state
    torch.save(tree, path, _use_new_zipfile_serialization=how != "old")
    found = recognise(path, CONVNET)
    told = " ".join(found.notes)
    assert "read as tensors alone, and is kept as safetensors" in told
    assert ("'state_dict' of the checkpoint is used" in told) == (how == "nested")
    assert ("'module.'" in told) == (how in ("parallel", "both"))
    assert ("'_orig_mod.'" in told) == (how in ("compiled", "both"))
    given = images(GREY)
    answers = answers_of(found, tmp_path / "silo", given, normalisation=HALF)
    np.testing.assert_allclose(answers, own_softmax(convnet(), given, HALF), atol=1e-5)


class Tripwire:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_of_more_than_tensors_is_refused_and_runs_nothing(old, tmp_path):
    trace = tmp_path / "it ran"
    tree = {"state_dict": convnet().state_dict(), "more": Tripwire(trace)}
    torch.save(tree, tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(ManifestError, match=r"runs code when it is read; not opened; .*torch.save\(model.state_dict"):
        recognise(tmp_path / "model.pth", CONVNET)
    assert not trace.exists()


def test_a_whole_model_is_refused(tmp_path):
    torch.save(Small(), tmp_path / "model.pth")
    with pytest.raises(ManifestError, match="holds more than tensors, such as a whole model"):
        recognise(tmp_path / "model.pth", CONVNET)


def test_of_several_state_dicts_none_is_guessed_and_without_one_it_is_said(tmp_path):
    state = dict(convnet().state_dict())
    torch.save({"model": state, "model_ema": state}, tmp_path / "two.pth")
    with pytest.raises(ManifestError, match=r"several state dicts \(model, model_ema\); save alone the one"):
        recognise(tmp_path / "two.pth", CONVNET)
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(ManifestError, match="holds no state dict"):
        recognise(tmp_path / "none.pth", CONVNET)


def test_a_file_that_was_cut_off_is_told(tmp_path):
    torch.save(convnet().state_dict(), tmp_path / "model.pth")
    data = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(data[:-200])
    with pytest.raises(ManifestError, match="is no whole zip archive.*copy it again"):
        recognise(tmp_path / "model.pth", CONVNET)
    save_file(convnet().state_dict(), tmp_path / "weights")
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:-200])
    with pytest.raises(ManifestError, match="is a damaged safetensors file"):
        recognise(tmp_path / "weights", CONVNET)


def test_constants_for_another_number_of_channels_are_explained(tmp_path):
    save_file(convnet().state_dict(), tmp_path / "weights")
    with pytest.raises(ManifestError, match=r"normalisation.mean=.*must have 1 values; give one per channel"):
        recognise(tmp_path / "weights", dataclasses.replace(CONVNET, normalisation=CONSTANTS))


def test_a_width_is_said_of_this_projects_networks_alone(tmp_path):
    save_file(squeezenet().state_dict(), tmp_path / "weights")
    said = Hints(architecture="squeezenet1_1", image_shape=(3, 32, 32), probabilities=False, width=7)
    with pytest.raises(ManifestError, match="width=7: means nothing for a model of kind torchvision"):
        recognise(tmp_path / "weights", said)


@pytest.mark.parametrize(("dtype", "named"), [(torch.int8, "int8"), (torch.complex64, "complex64")])
@pytest.mark.parametrize("kind", ["fedcpsc", "torchvision"])
def test_numbers_that_no_weight_can_be_are_refused_when_adopted_and_when_opened(kind, dtype, named, tmp_path):
    network = convnet() if kind == "fedcpsc" else squeezenet()
    hints = (
        CONVNET
        if kind == "fedcpsc"
        else Hints(architecture="squeezenet1_1", image_shape=(3, 32, 32), probabilities=False)
    )
    save_file(network.state_dict(), tmp_path / "weights")
    found = recognise(tmp_path / "weights", hints)
    save_file(
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in network.state_dict().items()},
        tmp_path / "wrong",
    )
    told = f"weight holds {named}, must hold floating-point numbers; save the weights in float32"
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "wrong", hints)
    by_hand = dataclasses.replace(found, weights=(tmp_path / "wrong").read_bytes())
    manifest = silo_of(by_hand, tmp_path / "silo", normalisation=HALF if kind == "fedcpsc" else CONSTANTS)
    with pytest.raises(ManifestError, match=told):
        open_teacher(tmp_path / "silo", manifest)


def test_tied_tensors_and_half_precision_are_kept(tmp_path):
    state = {key: value.half() for key, value in squeezenet().state_dict().items()}
    state["classifier.1.bias"] = state["features.0.bias"][:3]  # shares its storage with another
    torch.save(state, tmp_path / "model.pth")
    hints = Hints(architecture="squeezenet1_1", image_shape=(3, 32, 32), probabilities=False)
    found = recognise(tmp_path / "model.pth", hints)
    network = squeezenet()
    network.load_state_dict({key: value.float() for key, value in state.items()})
    given = images((3, 32, 32))
    answers = answers_of(found, tmp_path / "silo", given, normalisation=CONSTANTS)
    np.testing.assert_allclose(answers, own_softmax(network, given), atol=1e-5)


def test_a_name_of_two_libraries_is_told_apart_by_the_tensors(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "theirs")
    hints = Hints(architecture="resnet18", image_shape=(3, 32, 32))
    found = recognise(tmp_path / "theirs", hints)
    assert (found.kind, found.architecture, found.outputs, found.width) == ("torchvision", "resnet18", 3, 1)
    given = images((3, 32, 32))
    answers = answers_of(found, tmp_path / "silo", given, normalisation=CONSTANTS)
    np.testing.assert_allclose(answers, own_softmax(resnet, given), atol=1e-5)
    save_file(build_classifier("resnet18", 3, (3, 32, 32), seed=0).state_dict(), tmp_path / "ours")
    assert recognise(tmp_path / "ours", hints).kind == "torch"


def test_a_first_layer_for_grey_images_and_an_old_checkpoint_without_counters_are_taken(tmp_path, resnet):
    network = torchvision.models.resnet18(num_classes=3)
    network.load_state_dict(resnet.state_dict())
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.eval()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "weights")
    found = recognise(tmp_path / "weights", Hints(architecture="resnet18", image_shape=(1, 32, 32)))
    assert found.channels == 1
    given = images((1, 32, 32))
    answers = answers_of(found, tmp_path / "silo", given, normalisation=HALF)
    np.testing.assert_allclose(answers, own_softmax(network, given, HALF), atol=1e-5)
    with pytest.raises(ManifestError, match="the weights are for 1 channels"):
        recognise(tmp_path / "weights", Hints(architecture="resnet18", image_shape=(3, 32, 32)))


def test_without_an_architecture_or_with_another_the_three_nearest_are_named(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "weights")
    with pytest.raises(ManifestError, match="network like torchvision/resnet18, torchvision/resnet34 or .*name the"):
        recognise(tmp_path / "weights")
    told = "do not fit resnet34: .* tensors are missing .*look like torchvision/resnet18, torchvision/resnet34 or"
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "weights", Hints(architecture="resnet34"))
    with pytest.raises(ManifestError, match="'resnet81': is unknown here; the weights look like torchvision/resnet18"):
        recognise(tmp_path / "weights", Hints(architecture="resnet81"))


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "swin_t", "vgg11_bn", "regnet_y_400mf", "vit_b_32"])
def test_the_nearest_network_is_the_one_that_it_is(name):
    state = skeleton(TORCHVISION, name, Plan(outputs=5)).state_dict()
    assert nearest(state)[0] == f"torchvision/{name}"


def test_networks_whose_state_dict_leaves_open_what_they_compute_are_not_offered():
    assert not {"googlenet", "inception_v3"} & set(TORCHVISION.names())


def test_another_width_or_number_of_classes_than_said_is_refused(tmp_path):
    save_file(convnet().state_dict(), tmp_path / "weights")
    with pytest.raises(ManifestError, match="do not fit convnet: a tensor has another shape"):
        recognise(tmp_path / "weights", Hints(architecture="convnet", image_shape=GREY, width=16))
    with pytest.raises(ManifestError, match="number of classes=7: the model has 10"):
        recognise(tmp_path / "weights", Hints(architecture="convnet", image_shape=GREY, outputs=7))


def test_a_manifest_edited_to_another_network_is_refused(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "weights")
    found = recognise(tmp_path / "weights", Hints(architecture="resnet18", image_shape=(3, 32, 32)))
    manifest = silo_of(found, tmp_path / "silo", normalisation=CONSTANTS)
    for edit, told in (
        ({"architecture": "resnet34"}, "do not fit torchvision/resnet34: .*are missing"),
        ({"architecture": "resnet81"}, "'resnet81': is unknown to the installed torchvision"),
        ({"classes": 4}, r"tensor has another shape \(fc.weight: \[3, 512\] for \[4, 512\]\)"),
    ):
        with pytest.raises(ManifestError, match=told):
            open_teacher(tmp_path / "silo", manifest.model_copy(update=edit))


def test_timm_is_imported_only_where_it_is_named_and_asked_for_by_name_where_it_lacks(tmp_path, monkeypatch, resnet):
    save_file(resnet.state_dict(), tmp_path / "weights")
    monkeypatch.setitem(sys.modules, "timm", None)
    shape = (3, 32, 32)
    assert recognise(tmp_path / "weights", Hints(architecture="resnet18", image_shape=shape)).kind == "torchvision"
    with pytest.raises(ManifestError, match=r"needs timm; install it: pip install 'fedcpsc\[timm\]'"):
        recognise(tmp_path / "weights", Hints(architecture="timm/resnet18", image_shape=shape))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_of_timm_answers_as_its_owner_knows_it(name, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "weights")
    shape = (3, 64, 64) if name == "resnet18" else (3, 224, 224)
    found = recognise(tmp_path / "weights", Hints(architecture=f"timm/{name}", image_shape=shape))
    assert (found.kind, found.architecture, found.outputs) == ("timm", name, 3)
    given = images(shape, 2)
    answers = answers_of(found, tmp_path / "silo", given, normalisation=CONSTANTS)
    np.testing.assert_allclose(answers, own_softmax(network, given), atol=1e-4)
