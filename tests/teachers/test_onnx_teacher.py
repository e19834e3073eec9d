# SPDX-License-Identifier: Apache-2.0
"""ONNX models at the door: whole ones are run, those that keep weights elsewhere are refused unread."""

import sys

import numpy as np
import pytest
from support.adopted_silo import SHAPE, adopt, onnx_model

from fedcpsc.errors import ManifestError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.teachers.onnx_teacher import OnnxTeacher


def test_a_whole_model_answers(tmp_path):
    gatekeeper = open_gatekeeper(adopt(tmp_path / "silo"))
    answer = gatekeeper.answer(Query("a" * 32, AnswerForm.PROBABILITIES, np.zeros((3, *SHAPE), np.uint8)))
    gatekeeper.close()
    assert isinstance(answer, Answer)
    assert answer.values.shape == (3, 10)


@pytest.mark.parametrize("location", ["model.onnx.data", "../model.onnx.data", "/etc/hostname"])
def test_weights_in_a_second_file_are_refused_whatever_lies_in_the_working_directory(location, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for path in (work / "model.onnx.data", tmp_path / "model.onnx.data"):
        path.write_bytes(np.zeros((64, 10), np.float32).tobytes())
    folder = adopt(tmp_path / "silo", onnx_model(external=location))
    (folder / "model.onnx.data").write_bytes(np.zeros((64, 10), np.float32).tobytes())
    told = r"keeps weights in another file \(.*\), which is not read; fold them .*external_data=False.*save_as_external"
    with pytest.raises(ManifestError, match=told):
        open_gatekeeper(folder)


def test_weights_elsewhere_are_found_wherever_in_the_model_they_stand(tmp_path):
    onnx = pytest.importorskip("onnx")
    manifest = load_manifest(adopt(tmp_path / "silo"))
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    onnx.external_data_helper.set_external_data(tensor, "elsewhere.bin")
    tensor.ClearField("raw_data")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    for place in ("node", "branch", "function"):
        model = onnx.ModelProto.FromString(onnx_model())
        if place == "node":
            model.graph.node.append(constant)
        elif place == "branch":
            model.graph.node.append(onnx.helper.make_node("If", ["x"], ["c"], then_branch=branch, else_branch=branch))
        else:
            made = onnx.helper.make_function("own", "f", [], ["c"], [constant], [onnx.helper.make_opsetid("", 17)])
            model.functions.append(made)
        with pytest.raises(ManifestError, match=r"another file \(elsewhere.bin\)"):
            OnnxTeacher(model.SerializeToString(), manifest)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_both_packages_of_the_extra_nothing_is_opened(missing, tmp_path, monkeypatch):
    folder = adopt(tmp_path / "silo")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ManifestError, match=r"needs onnx and onnxruntime; install them: pip install 'fedcpsc\[onnx\]'"):
        open_gatekeeper(folder)
