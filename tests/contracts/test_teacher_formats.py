# SPDX-License-Identifier: Apache-2.0
"""What every teacher format must do, and what adding one takes."""

import io
import sys

import numpy as np
import pytest
import torchvision
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from support.documented import ROOT
from support.own_models import Small, as_program, as_script
from support.silo_folder import SHAPE, make_folder

from benchmarks.tables import silo_choices
from fedcpsc.errors import ConfigError, ManifestError, TeacherError
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.manifest import WEIGHTS_FILE, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.recognise import Hints, recognise
from fedcpsc.teachers.shard_teacher import stacked

IMAGES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype=np.uint8)
NETWORK = {"architecture": "convnet", "entry_point": None, "width": 4}


def network(seed, outputs):
    return build_classifier("convnet", outputs, SHAPE, 4, seed=seed).eval()


def torch_silo(folder, outputs=2, **facts):
    make_folder(folder, save_tensors(dict(network(1, outputs).state_dict())), kind="torch", **NETWORK, **facts)


def shards_silo(folder, outputs=2, **facts):
    weights = save_tensors(stacked([network(seed, outputs) for seed in range(3)]))
    make_folder(folder, weights, kind="shards", privacy={"kind": "shards", "shards": 3}, **NETWORK, **facts)


def onnx_silo(folder, outputs=2, **facts):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(1).normal(size=(64, outputs)).astype(np.float32)
    make, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [make("Flatten", ["x"], ["flat"]), make("MatMul", ["flat", "w"], ["logits"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", floats, ["n", *SHAPE])],
        [onnx.helper.make_tensor_value_info("logits", floats, ["n", outputs])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    stream = io.BytesIO()
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), stream)
    make_folder(folder, stream.getvalue(), kind="onnx", architecture="onnx", entry_point=None, **facts)


def python_silo(folder, outputs=2, **facts):
    entry = {2: "support.brightness_teacher:make", 3: "support.brightness_teacher:make_with_none"}[outputs]
    make_folder(folder, **{"entry_point": entry} | facts)


def adopted_silo(folder, kind, path, facts, **hints):
    found = recognise(path, Hints(image_shape=SHAPE, probabilities=False, **hints))
    assert found.kind == kind
    make_folder(folder, found.weights, kind=kind, architecture=found.architecture, entry_point=None, **facts)


def torchvision_silo(folder, outputs=2, **more):
    state = torchvision.models.squeezenet1_1(num_classes=outputs).state_dict()
    state["features.0.weight"] = state["features.0.weight"][:, :1].contiguous()
    save_file(state, folder / "model")
    shape = (1, 40, 40)
    found = recognise(folder / "model", Hints(architecture="squeezenet1_1", image_shape=shape, probabilities=False))
    facts = {"kind": "torchvision", "architecture": "squeezenet1_1", "image_shape": shape, "entry_point": None}
    make_folder(folder, found.weights, **facts, **more)


def timm_silo(folder, outputs=2, **facts):
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("resnet18", num_classes=outputs, in_chans=1).state_dict(), folder / "model")
    adopted_silo(folder, "timm", folder / "model", facts, architecture="timm/resnet18")


def huggingface_silo(folder, outputs=2, **facts):
    transformers = pytest.importorskip("transformers")
    transformers.logging.disable_progress_bar()
    sizes = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic", "num_channels": 1}
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=outputs))
    network.save_pretrained(folder / "model")
    adopted_silo(folder, "huggingface", folder / "model", facts)


def torch_export_silo(folder, outputs=2, **facts):
    path = as_program(Small(channels=1, classes=outputs), folder / "model.pt2", SHAPE)
    adopted_silo(folder, "torch_export", path, facts, allow_code=True)


def torchscript_silo(folder, outputs=2, **facts):
    path = as_script(Small(channels=1, classes=outputs), folder / "model.pt", SHAPE)
    adopted_silo(folder, "torchscript", path, facts, allow_code=True)


SILOS = {
    "torch": torch_silo,
    "shards": shards_silo,
    "onnx": onnx_silo,
    "torchvision": torchvision_silo,
    "timm": timm_silo,
    "huggingface": huggingface_silo,
    "torch_export": torch_export_silo,
    "torchscript": torchscript_silo,
    "python": python_silo,
}


@pytest.fixture(params=FORMATS.choices.built_in())
def folder(request, tmp_path):
    """A silo's folder with a teacher of each format."""
    SILOS[request.param](tmp_path)
    assert load_manifest(tmp_path).kind == request.param
    return tmp_path


def test_a_teacher_gives_a_distribution_for_each_image_in_batches_of_any_size(folder):
    manifest = load_manifest(folder)
    images = np.random.default_rng(0).integers(0, 256, (7, *manifest.image_shape), dtype=np.uint8)
    whole, by_threes = (open_teacher(folder, manifest, batch_size=size).predict(images) for size in (100, 3))
    assert whole.shape == (7, 2)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(whole, by_threes, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS.choices.built_in())
def test_a_teacher_that_can_say_none_of_these_has_one_output_more(kind, tmp_path):
    SILOS[kind](tmp_path, outputs=3, none_class=True)
    manifest = load_manifest(tmp_path)
    assert (manifest.classes, manifest.outputs) == (2, 3)
    teacher = open_teacher(tmp_path, manifest)
    assert teacher.classes == 3
    answers = teacher.predict(np.random.default_rng(0).integers(0, 256, (7, *manifest.image_shape), dtype=np.uint8))
    assert answers.shape == (7, 3)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS.choices.built_in())
def test_a_manifest_that_promises_another_number_of_outputs_is_no_answer(kind, tmp_path):
    SILOS[kind](tmp_path, outputs=2, none_class=True)
    manifest = load_manifest(tmp_path)
    images = np.zeros((7, *manifest.image_shape), np.uint8)
    with pytest.raises((ManifestError, TeacherError)):
        open_teacher(tmp_path, manifest).predict(images)


def test_weights_that_are_not_the_manifests_are_refused(folder):
    manifest, path = load_manifest(folder), folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ManifestError, match="SHA-256"):
        open_teacher(folder, manifest)


@pytest.mark.parametrize("name", FORMATS.choices.built_in())
def test_it_says_what_it_is_and_when_to_take_it_and_the_docs_hold_it(name):
    entry = FORMATS.get(name)
    assert len(entry.summary.split()) >= 4
    assert entry.when.split()[0] in {"where", "for", "to"}, "a clause after `take it`"
    (row,) = (line for line in silo_choices.teacher_formats() if line.startswith(f"| `{name}` |"))
    assert row in (ROOT / "docs/silos.md").read_text(encoding="utf-8"), "run python -m benchmarks.tables"


def test_a_kind_that_is_not_registered_is_refused(tmp_path):
    manifest = make_folder(tmp_path)
    with pytest.raises(ConfigError, match="must be one of torch, shards, onnx, torchvision, .*, python"):
        open_teacher(tmp_path, manifest.model_copy(update={"kind": "pickle"}))


TOY = """
import numpy as np

from fedcpsc.teachers.format import TeacherFormat


class Constant:
    def __init__(self, share, manifest):
        self.row, self.classes, self.image_shape = [share, 1 - share], manifest.classes, manifest.image_shape

    def predict(self, images):
        return np.tile(np.array(self.row, np.float32), (len(images), 1))


def load(weights, manifest, batch_size):
    return Constant(float(weights), manifest)


TOY = TeacherFormat(
    name="toy", summary="toy that a test registers", when="to see that one line is enough", weights_file="a number",
    load=load, code="none", checks="nothing",
)
"""


def test_one_file_and_one_line_add_a_format_that_a_silo_then_opens(tmp_path, monkeypatch):
    (tmp_path / "toy_format.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(FORMATS.choices, "_built_in", dict(FORMATS.choices._built_in))
    FORMATS.choices.register("toy", "toy_format:TOY")  # the one line
    make_folder(tmp_path / "silo", b"0.25", kind="toy", architecture="toy", entry_point=None)
    teacher = open_teacher(tmp_path / "silo", load_manifest(tmp_path / "silo"))
    np.testing.assert_array_equal(teacher.predict(IMAGES), np.tile([0.25, 0.75], (7, 1)))
    row = "| `toy` | a number | to see that one line is enough | nothing | none | nothing |"
    assert row in silo_choices.teacher_formats()
    del sys.modules["toy_format"]
