# SPDX-License-Identifier: Apache-2.0
"""Names of classes and constants of pixels that a model's file says: taken, told, or refused where they contradict."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedcpsc.errors import ManifestError
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.student_file import ABOUT_FILE, INPUT_SCALE
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognise import Hints, recognise

GREY = (1, 8, 8)
HALF = Normalisation(mean=(0.5,), std=(0.5,))
NAMES = ("horse", "cat", "dog")
STUDENT = {
    "architecture": "convnet", "width": "6", "classes": "3", "class_names": json.dumps(NAMES), "image_shape": "1x8x8",
    "input": INPUT_SCALE, "output": "logits",
}  # fmt: skip
CONVNET = Hints(architecture="convnet", image_shape=GREY)


def convnet():
    network = build_classifier("convnet", 3, GREY, 6, seed=0).eval()
    with torch.no_grad():
        for value in list(network.parameters())[-2:]:
            value.mul_(40)  # untrained outputs lie in [0, 1] by chance, and would look like sigmoids
    return network


def as_onnx(path, entries):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, helper = onnx.helper.make_node, onnx.helper
    weight = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    graph = helper.make_graph(
        [make("Flatten", ["x"], ["flat"]), make("MatMul", ["flat", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", 1, ["n", *GREY])],
        [helper.make_tensor_value_info("logits", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(made, entries)
    path.write_bytes(made.SerializeToString())
    return Hints()


def as_safetensors(path, entries):
    save_file(convnet().state_dict(), path, metadata=entries)
    return Hints() if entries.get("input") == INPUT_SCALE else CONVNET


def as_archive(path, entries):
    program = torch.export.export(convnet(), (torch.zeros(2, *GREY),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, str(path), extra_files={ABOUT_FILE: json.dumps(entries)})
    return Hints(allow_code=True)


def as_checkpoint(path, entries):
    torch.save({"state_dict": convnet().state_dict(), **entries}, path)
    return CONVNET


def with_hints(hints, **more):
    return Hints(**{**{name: getattr(hints, name) for name in hints.__dataclass_fields__}, **more})


@pytest.mark.parametrize("write", [as_onnx, as_safetensors, as_archive])
def test_an_exported_student_says_its_names_and_pixels_and_a_contradiction_is_refused(write, tmp_path):
    path = tmp_path / ("model.pt2" if write is as_archive else "model")
    hints = write(path, STUDENT)
    found = recognise(path, hints)
    assert (found.class_names, found.normalisation, found.image_shape) == (NAMES, HALF, GREY)
    told = " ".join(found.notes)
    assert "names of the classes are taken from the file's entry 'class_names'" in told
    assert "what was done to pixels is taken from the file" in told
    assert recognise(path, with_hints(hints, normalisation=HALF, outputs=3)).notes == ()
    none = Normalisation(mean=(0.0,), std=(1.0,))
    with pytest.raises(ManifestError, match=r"normalisation='0/1': the file says mean 0.5 and std 0.5; leave --normal"):
        recognise(path, with_hints(hints, normalisation=none))


def test_weights_of_a_student_whose_network_normalised_by_itself_are_given_its_constants(tmp_path):
    inside = {"mean": [0.13], "std": [0.31]}
    hints = as_safetensors(tmp_path / "weights", STUDENT | {"normalisation": json.dumps(inside)})
    assert recognise(tmp_path / "weights", hints).normalisation == Normalisation(mean=(0.13,), std=(0.31,))
    hints = as_onnx(tmp_path / "model", STUDENT | {"normalisation": json.dumps(inside)})
    assert recognise(tmp_path / "model", hints).normalisation == HALF  # they are a part of the graph


@pytest.mark.parametrize(
    "entries",
    [
        {"names": "{0: 'horse', 1: 'cat', 2: 'dog'}"},
        {"classes": '["horse", "cat", "dog"]'},
        {"class_to_idx": '{"cat": 1, "dog": 2, "horse": 0}'},
        {"id2label": '{"2": "dog", "0": "horse", "1": "cat"}', "label2id": "{'LABEL_0': 0}"},
    ],
)
def test_names_that_other_exporters_write_are_taken(entries, tmp_path):
    assert recognise(tmp_path / "m", as_onnx(tmp_path / "m", entries)).class_names == NAMES


def test_names_and_constants_in_a_checkpoint_are_taken_and_a_contradiction_is_refused(tmp_path):
    entries = {
        "epoch": 3, "hyper_parameters": {"classes": list(NAMES)}, "class_to_idx": {"horse": 0, "cat": 1, "dog": 2},
        "normalization": {"mean": [0.1], "std": [0.3]},
    }  # fmt: skip
    hints = as_checkpoint(tmp_path / "m", entries)
    found = recognise(tmp_path / "m", hints)
    assert (found.class_names, found.normalisation) == (NAMES, Normalisation(mean=(0.1,), std=(0.3,)))
    with pytest.raises(ManifestError, match="the file says mean 0.1 and std 0.3"):
        recognise(tmp_path / "m", with_hints(hints, normalisation=HALF))
    as_checkpoint(tmp_path / "m", {"classes": list(NAMES), "class_to_idx": {"cat": 0, "dog": 1, "horse": 2}})
    with pytest.raises(ManifestError, match="'classes' and 'class_to_idx' give the outputs unlike names; remove"):
        recognise(tmp_path / "m", hints)


def test_constants_of_a_whole_model_may_be_applied_inside_so_that_they_are_told_alone(tmp_path):
    hints = as_onnx(tmp_path / "m", {"normalisation": '{"mean": [0.1], "std": [0.3]}'})
    assert recognise(tmp_path / "m", hints).normalisation is None
    found = recognise(tmp_path / "m", with_hints(hints, normalisation=HALF))
    assert found.normalisation == HALF
    assert "not known whether the model applies them itself" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"names": "{0: 'class0', 1: 'class1', 2: 'class2'}"}, False),
        ({"names": "['cat', 'dog']"}, True),
        ({"labels": '["cat", "cat", "dog"]'}, True),
        ({"classes": "3", "names": "[[[[[", "description": "a model"}, False),
    ],
)
def test_what_names_no_outputs_is_not_used(entries, told, tmp_path):
    found = recognise(tmp_path / "m", as_onnx(tmp_path / "m", entries))
    assert found.class_names is None
    assert any("does not name each of the outputs" in note for note in found.notes) == told
