# SPDX-License-Identifier: Apache-2.0
"""Every kind of teacher behind the one Protocol."""

import io
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors
from support.silo_folder import SHAPE, make_folder
from torch import nn

from fedcpsc.errors import ManifestError, RefusalCode, TeacherError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.logs import JsonLines, TextLines
from fedcpsc.models.registry import build_classifier
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, Refusal
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.manifest import WEIGHTS_FILE
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import ShardTeacher, checked
from fedcpsc.teachers.shard_teacher import stacked

IMAGES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype=np.uint8)
SOME = {"kind": "torch", "architecture": "convnet", "entry_point": None, "width": 4}


def networks(count: int, architecture: str = "convnet") -> list[nn.Module]:
    return [build_classifier(architecture, 2, SHAPE, 4, seed=seed).eval() for seed in range(count)]


def plainly(network: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(network(torch.from_numpy(IMAGES).float() / 127.5 - 1), 1).numpy()


def test_a_torch_teacher_answers_as_its_network_in_batches(tmp_path: Path) -> None:
    (network,) = networks(1)
    manifest = make_folder(tmp_path, save_tensors(dict(network.state_dict())), **SOME)
    found = open_teacher(tmp_path, manifest, batch_size=3).predict(IMAGES)
    np.testing.assert_allclose(found, plainly(network), atol=1e-5)


def test_the_usual_batch_is_smaller_for_large_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    fake: Any = SimpleNamespace(load=lambda weights, manifest, batch_size: given.append(batch_size))
    monkeypatch.setattr(FORMATS, "get", lambda name: fake)
    monkeypatch.setattr("fedcpsc.teachers.opening.read_weights", lambda folder, manifest: b"")
    for side in (28, 64, 96, 224, 1024):
        manifest: Any = SimpleNamespace(kind="torch", image_shape=(3, side, side))
        open_teacher(tmp_path, manifest)
    open_teacher(tmp_path, manifest, batch_size=77)
    assert given == [64, 64, 56, 10, 1, 77]


def test_normalisation_is_the_manifests(tmp_path: Path) -> None:
    (network,) = networks(1)
    constants = {"mean": (0.1,), "std": (0.3,)}
    manifest = make_folder(tmp_path, save_tensors(dict(network.state_dict())), **SOME, normalisation=constants)
    with torch.inference_mode():
        expected = torch.softmax(network((torch.from_numpy(IMAGES).float() / 255 - 0.1) / 0.3), 1)
    np.testing.assert_allclose(open_teacher(tmp_path, manifest).predict(IMAGES), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("architecture", ["convnet", "scattering"])  # the second has features that all shards share
def test_shards_answer_each_as_its_own_network_and_together_as_their_mean(tmp_path: Path, architecture: str) -> None:
    several = networks(3, architecture)
    facts = SOME | {"kind": "shards", "architecture": architecture, "privacy": {"kind": "shards", "shards": 3}}
    manifest = make_folder(tmp_path, save_tensors(stacked(several)), **facts)
    teacher = open_teacher(tmp_path, manifest, batch_size=4)
    assert isinstance(teacher, ShardTeacher)
    expected = np.stack([plainly(network) for network in several])
    np.testing.assert_allclose(teacher.predict_shards(IMAGES), expected, atol=1e-5)
    np.testing.assert_allclose(teacher.predict(IMAGES), expected.mean(0), atol=1e-5)
    with pytest.raises(ManifestError, match=f"are not 4 x {architecture}"):
        open_teacher(tmp_path, manifest.model_copy(update={"privacy": {"kind": "shards", "shards": 4}}))


def test_an_onnx_teacher_answers_as_the_network_it_was_exported_from(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    make, proto = onnx.helper.make_node, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [make("Flatten", ["x"], ["flat"]), make("MatMul", ["flat", "w"], ["logits"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", proto.FLOAT, ["n", *SHAPE])],
        [onnx.helper.make_tensor_value_info("logits", proto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    stream = io.BytesIO()
    onnx.save(model, stream)
    manifest = make_folder(tmp_path, stream.getvalue(), kind="onnx", architecture="onnx", entry_point=None)
    found = open_teacher(tmp_path, manifest, batch_size=3).predict(IMAGES)
    logits = (IMAGES.reshape(7, -1) / 127.5 - 1) @ weight
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(TeacherError, match="failed"):
        open_teacher(tmp_path, manifest).predict(IMAGES[..., :4])


def test_a_file_that_is_no_onnx_model_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    manifest = make_folder(tmp_path, b"no model", kind="onnx", architecture="onnx", entry_point=None)
    with pytest.raises(ManifestError, match="is no ONNX model"):
        open_teacher(tmp_path, manifest)


def test_a_python_teacher_is_named_by_the_silos_own_manifest(tmp_path: Path) -> None:
    make_folder(tmp_path)
    gatekeeper = open_gatekeeper(tmp_path)
    dark_and_bright = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)])
    answer = gatekeeper.answer(Query("a" * 32, AnswerForm.PROBABILITIES, dark_and_bright))
    assert isinstance(answer, Answer)
    assert answer.values.tolist() == [[255, 0], [0, 255]]


def test_what_a_python_teacher_raises_stays_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path, entry_point="support.brightness_teacher:broken")
    refused = open_gatekeeper(tmp_path, tried=False).answer(Query("a" * 32, AnswerForm.PROBABILITIES, IMAGES))
    assert refused == Refusal(RefusalCode.INTERNAL, "a" * 32)
    lines = [form.format(record) for record in caplog.records for form in (TextLines(), JsonLines())]
    assert not any("private pixel" in line for line in lines)
    assert all("ValueError" in line for line in lines)


@pytest.mark.parametrize("entry_point", ["no_such_module:make", "support.brightness_teacher:nothing", "json:loads"])
def test_an_entry_point_that_cannot_be_used_is_told(tmp_path: Path, entry_point: str) -> None:
    manifest = make_folder(tmp_path, b"?", entry_point=entry_point)
    with pytest.raises(ManifestError, match="entry_point"):
        open_teacher(tmp_path, manifest)


def test_an_entry_point_belongs_to_python_teachers_alone(tmp_path: Path) -> None:
    for wrong in ({"kind": "torch"}, {"entry_point": None}, {"entry_point": "os.system('x')"}):
        with pytest.raises(ValueError, match="entry_point"):
            make_folder(tmp_path, **wrong)


@pytest.mark.parametrize(
    "given",
    [
        np.full((7, 2), np.nan, np.float32),
        np.full((7, 2), np.inf, np.float32),
        np.full((7, 2), 0.9, np.float32),
        np.full((7, 3), 1 / 3, np.float32),
        np.full((6, 2), 0.5, np.float32),
        np.full((7, 2), 0.5, np.float64),
        np.tile(np.array([1.5, -0.5], np.float32), (7, 1)),
    ],
)
def test_what_is_no_distribution_is_an_error_that_shows_no_value(given: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(TeacherError) as caught:
            checked(given, 7, 2)
    assert "0.9" not in str(caught.value)


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    (network,) = networks(1)
    manifest = make_folder(tmp_path, save_tensors(dict(network.state_dict())), **(SOME | {"width": 8}))
    with pytest.raises(ManifestError, match="do not fit"):
        open_teacher(tmp_path, manifest)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"changed")
    with pytest.raises(ManifestError, match="SHA-256"):
        open_teacher(tmp_path, manifest)


def test_a_file_of_torch_save_is_named_with_the_lines_that_convert_it(tmp_path: Path) -> None:
    (network,) = networks(1)
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    manifest = make_folder(tmp_path, stream.getvalue(), **SOME)
    told = "was written by torch.save.*torch.load.*weights_only=True.*safetensors.torch.save_file"
    with pytest.raises(ManifestError, match=told):
        open_teacher(tmp_path, manifest)


def test_the_prefix_of_a_parallel_network_is_named_in_few_words(tmp_path: Path) -> None:
    (network,) = networks(1)
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    manifest = make_folder(tmp_path, save_tensors(state), **SOME)
    with pytest.raises(ManifestError, match="every key begins with 'module.'") as caught:
        open_teacher(tmp_path, manifest)
    assert len(str(caught.value)) < 250


def test_the_width_of_another_network_is_named(tmp_path: Path) -> None:
    wider = build_classifier("convnet", 2, SHAPE, 5, seed=0)
    manifest = make_folder(tmp_path, save_tensors(dict(wider.state_dict())), **SOME)
    with pytest.raises(
        ManifestError, match="do not fit convnet: a tensor has another shape .head.weight: .*; check width"
    ):
        open_teacher(tmp_path, manifest)
