# SPDX-License-Identifier: Apache-2.0
"""Folders in Hugging Face form: labels, preparation and every tensor are read, and nothing is fetched or run."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.own_models import answers_of, images

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.huggingface_files import class_names, preparation
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognise import Hints, recognise

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUASHED = IMAGENET | {"do_resize": True, "do_normalize": True, "size": {"height": 32, "width": 48}, "resample": 3}
CONFIG = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "num_channels": 3}


def prepared(tmp_path, tree):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(tree))
    return preparation(tmp_path, 3)


def test_preparation_by_squashing_and_its_constants(tmp_path):
    found = prepared(tmp_path, SQUASHED)
    assert (found.sides, found.resize) == ((32, 48), "squash")
    assert found.normalisation == Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert found.notes == ("pictures were resized by bicubic interpolation",)


@pytest.mark.parametrize(
    ("tree", "sides", "resize"),
    [
        ({"size": 224}, (224, 224), "squash"),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, (224, 224), "crop"),
        (
            {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 9, "width": 8}},
            (9, 8),
            "crop",
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), "crop"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), "squash"),
        ({"size": {"shortest_edge": 224}}, None, None),
        ({"size": {"height": 32, "width": 32}, "do_resize": False}, None, None),
        ({}, None, None),
    ],
)
def test_sides_and_resizing_of_the_forms_in_use(tree, sides, resize, tmp_path):
    found = prepared(tmp_path, tree)
    assert (found.sides, found.resize) == (sides, resize)


@pytest.mark.parametrize(
    ("tree", "resize", "told"),
    [
        ({"size": {"height": 40, "width": 40}, "crop_size": 32}, "squash", "squashed to 40x40.*0.80 times as large"),
        (
            {"size": 40, "crop_size": 32, "feature_extractor_type": "DeiTFeatureExtractor"},
            "squash",
            "squashed to 40x40",
        ),
        ({"size": 40, "crop_size": 32}, "crop", "the short side was scaled to 40, then the middle was cut out .32x32."),
        (
            {"size": {"shortest_edge": 224}, "crop_size": 224, "image_processor_type": "LevitImageProcessor"},
            "crop",
            "the short side was scaled to 256",
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.9, "crop_size": 224}, "crop", "short side was scaled to 248"),
        (
            {"size": {"shortest_edge": 64}, "crop_pct": 0.5, "do_center_crop": None},
            "crop",
            "short side was scaled to 128",
        ),
    ],
    ids=["DeiT", "DeiT of before", "one number", "LeViT", "PoolFormer", "ConvNeXT"],
)
def test_a_margin_that_was_cut_off_is_told(tree, resize, told, tmp_path):
    found = prepared(tmp_path, {"do_center_crop": True, "image_mean": 0.5, "image_std": 0.5} | tree)
    assert found.resize == resize
    (note,) = found.notes
    assert re.search(told, note)


def test_the_middle_without_its_size_is_asked_for_and_no_margin_means_no_note(tmp_path):
    constants = {"image_mean": 0.5, "image_std": 0.5}
    found = prepared(tmp_path, constants | {"do_center_crop": True, "size": {"height": 32, "width": 32}})
    assert found.sides is None
    assert found.notes == ("preprocessor_config.json cuts out the middle and does not say its crop_size",)
    whole = {"do_center_crop": True, "size": {"shortest_edge": 32}, "crop_size": 32}
    assert prepared(tmp_path, constants | whole).notes == ()


@pytest.mark.parametrize(
    ("tree", "pixel", "wanted"),
    [
        ({"image_mean": 0.5, "image_std": 0.5}, 255, 1.0),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 127.5}, 255, 3.0),
        ({"image_mean": [127.5] * 3, "image_std": [127.5] * 3, "do_rescale": False}, 0, -1.0),
        ({"do_normalize": False}, 51, 0.2),
        ({"do_normalize": False, "do_rescale": False}, 51, 51.0),
    ],
)
def test_constants_follow_the_rescaling(tree, pixel, wanted, tmp_path):
    constants = prepared(tmp_path, tree).normalisation
    assert (pixel / 255 - constants.mean[0]) / constants.std[0] == pytest.approx(wanted, abs=1e-6)


def test_constants_that_are_missing_are_asked_for_and_strange_steps_refused(tmp_path):
    assert prepared(tmp_path, {"size": 8}).normalisation is None
    with pytest.raises(ManifestError, match="by do_flip_channel_order, which is not done here; export"):
        prepared(tmp_path, {"do_flip_channel_order": True})
    for tree in ({"image_mean": [0.5], "image_std": [0.5]}, {"image_mean": [0.5] * 3, "image_std": [0] * 3}):
        with pytest.raises(ManifestError, match="constants that cannot be used"):
            prepared(tmp_path, tree)


def test_class_names_are_in_the_order_of_the_outputs_and_without_a_gap(tmp_path):
    assert class_names(
        {"id2label": {"10": "k", "2": "c"} | {str(n): f"n{n}" for n in (0, 1, 3, 4, 5, 6, 7, 8, 9)}}, tmp_path
    )[0][2:11:8] == ("c", "k")
    assert class_names({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, tmp_path) == (None, 2)
    assert class_names({"num_labels": 5}, tmp_path) == (None, 5)
    with pytest.raises(ManifestError, match="without a gap"):
        class_names({"id2label": {"0": "a", "2": "b"}}, tmp_path)


@pytest.mark.parametrize(
    "back", [{"cat": 0, "dog": 1}, {"LABEL_0": 0, "LABEL_1": 1}, {"Cat": 0, "hound": 1}, {"cat": 7}, None]
)
def test_names_that_label2id_does_not_contradict_are_taken(back, tmp_path):
    config = {"id2label": {"0": "cat", "1": "dog"}, "label2id": back}
    assert class_names(config, tmp_path) == (("cat", "dog"), 2)


def test_names_in_another_order_than_that_of_label2id_are_refused(tmp_path):
    config = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"dog": 0, "cat": 1}}
    with pytest.raises(
        ManifestError, match="'cat': in .*config.json, is output 0 by id2label and output 1 by label2id"
    ):
        class_names(config, tmp_path)


def folder(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | config))
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "must be an image classifier"),
        ({"architectures": None}, "must be an image classifier"),
        ({"problem_type": "multi_label_classification"}, "several classes for one image"),
        ({"use_pretrained_backbone": True}, "use_pretrained_backbone needs weights or code beside this file"),
        ({"quantization_config": {"bits": 4}}, "quantization_config needs"),
    ],
)
def test_what_is_no_plain_classifier_is_refused_before_anything_is_built(config, told, tmp_path):
    with pytest.raises(ManifestError, match=told):
        recognise(folder(tmp_path, **config))


def test_weights_in_parts_or_nowhere_are_told(tmp_path):
    (folder(tmp_path) / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ManifestError, match="has its weights in 1 files; save it as one"):
        recognise(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ManifestError, match=r"has neither model.safetensors nor pytorch_model.bin"):
        recognise(tmp_path)


def test_without_transformers_it_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ManifestError, match=r"pip install 'fedcpsc\[huggingface\]'"):
        recognise(folder(tmp_path), Hints(image_shape=(3, 32, 32)))


def saved(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    transformers.logging.disable_progress_bar()
    names = {"id2label": {0: "cat", 1: "dog", 2: "horse"}, "label2id": {"cat": 0, "dog": 1, "horse": 2}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "resnet":
            sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
            settings = transformers.ResNetConfig(**sizes, **names)
            network = transformers.ResNetForImageClassification(settings)
        else:
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
            settings = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, **names)
            network = transformers.ViTForImageClassification(settings)
    network.eval().save_pretrained(tmp_path)
    preparation = SQUASHED | {"size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preparation))
    return network


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_folder_says_all_that_a_manifest_needs_and_answers_as_its_owner_knows_it(kind, tmp_path):
    network = saved(tmp_path / "model", kind)
    found = recognise(tmp_path / "model")
    assert (found.kind, found.outputs, found.image_shape, found.missing) == ("huggingface", 3, (3, 32, 32), ())
    assert (found.class_names, found.resize) == (("cat", "dog", "horse"), "squash")
    given = images((3, 32, 32))
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    with torch.no_grad():
        own = network((torch.from_numpy(given).float() / 255 - mean) / std).logits.softmax(1).numpy()
    answers = answers_of(found, tmp_path / "silo", given)
    np.testing.assert_allclose(answers, own, atol=1e-5)


def test_what_is_said_against_the_folder_is_told(tmp_path):
    saved(tmp_path, "resnet")
    half = Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
    found = recognise(tmp_path, Hints(image_shape=(3, 64, 64), normalisation=half))
    assert (found.image_shape, found.normalisation) == ((3, 64, 64), half)
    assert found.notes[-2:] == (
        "warning: image shape 3x64x64 is taken as you say, although preprocessor_config.json says 3x32x32",
        "warning: normalisation mean 0.5,0.5,0.5, std 0.5,0.5,0.5 is taken as you say, although"
        " preprocessor_config.json says mean 0.485,0.456,0.406, std 0.229,0.224,0.225",
    )
    same = Hints(image_shape=(3, 32, 32), normalisation=recognise(tmp_path).normalisation)
    assert recognise(tmp_path, same).notes == recognise(tmp_path).notes


def test_another_number_of_channels_than_the_models_is_explained(tmp_path):
    saved(tmp_path, "resnet")
    with pytest.raises(ManifestError, match=r"image_shape=\(1, 32, 32\): the model takes 3 channels.*say 3x32x32"):
        recognise(tmp_path, Hints(image_shape=(1, 32, 32)))


def test_a_configuration_that_asks_for_tuples_is_read_all_the_same(tmp_path):
    saved(tmp_path, "resnet")
    wanted = recognise(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"return_dict": False}))
    found = recognise(tmp_path)
    given = images((3, 32, 32))
    answers = [answers_of(each, tmp_path / name, given) for each, name in ((wanted, "a"), (found, "b"))]
    np.testing.assert_array_equal(*answers)


def test_a_tensor_that_lacks_is_never_replaced_by_random_values(tmp_path):
    saved(tmp_path, "resnet")
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: value for key, value in state.items() if key != "classifier.1.bias"}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ManifestError, match=r"do not fit it: tensors 1 missing \(classifier.1.bias\)"):
        recognise(tmp_path)
    save_file(state | {"foreign": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ManifestError, match=r"tensors 1 unexpected \(foreign\)"):
        recognise(tmp_path)
    save_file(state | {"classifier.1.bias": torch.zeros(4)}, tmp_path / "model.safetensors")
    with pytest.raises(ManifestError, match="cannot be loaded|mismatched"):
        recognise(tmp_path)


def test_quantised_weights_without_their_scales_are_refused(tmp_path):
    saved(tmp_path, "resnet")
    state = load_file(tmp_path / "model.safetensors")
    whole = {key: value.to(torch.int8) if value.is_floating_point() else value for key, value in state.items()}
    save_file(whole, tmp_path / "model.safetensors")
    with pytest.raises(ManifestError, match="holds int8, must hold floating-point numbers"):
        recognise(tmp_path)


def test_a_network_that_needs_a_hubs_code_is_refused(tmp_path):
    saved(tmp_path, "resnet")
    config = json.loads((tmp_path / "config.json").read_text())
    own = {
        "auto_map": {"AutoConfig": "evil.Config"},
        "model_type": "evil",
        "architectures": ["EvilForImageClassification"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(
        ManifestError, match="not among the image classifiers of transformers.*code from a hub is not run"
    ):
        recognise(tmp_path)


def test_a_pickled_folder_is_read_as_tensors_alone(tmp_path):
    saved(tmp_path, "resnet")
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert recognise(tmp_path).outputs == 3


def test_a_folder_that_timm_wrote_is_timms(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    own = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 64, 64]}
    tree = {"architecture": "resnet18", "num_classes": 3, "label_names": ["a", "b", "c"], "pretrained_cfg": own}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    found = recognise(tmp_path)
    assert (found.kind, found.class_names, found.missing) == ("timm", ("a", "b", "c"), ())
    assert found.normalisation == Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
