# SPDX-License-Identifier: Apache-2.0
"""Files that are no teacher: each is told for what it is, with what to do."""

import io
import os
import zipfile

import pytest
from support.own_models import HALF

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.image_input import raw_pixels
from fedcpsc.teachers.recognise import Hints, recognise


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "pointer of Git LFS.*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file, as Keras writes; export the model to ONNX"),
        (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite model; export"),
        (b"\x80\x04\x95\x10" + bytes(99), "is a pickle, which runs code when it is read.*state_dict.*entry point"),
        (b"\x80\x02}q\x00" + bytes(99), "is a pickle"),
        (b"\x1f\x8b\x08" + bytes(99), "compressed archive; unpack it"),
        (b"\x93NUMPY\x01\x00" + bytes(99), "array of NumPy"),
        (b"PK\x03\x04" + bytes(99), "no whole zip archive"),
        (b"hello, this is no model", "begins like no format that is known"),
        (b"\xff" * 7 + b"\x7f{" + bytes(99), "begins like no format that is known"),
    ],
)
def test_a_file_that_is_no_teacher_is_told_for_what_it_is(data, told, tmp_path):
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "model.onnx")


def test_an_onnx_name_over_other_bytes_is_no_traceback(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"\x08" + os.urandom(200))
    with pytest.raises(ManifestError, match="is no ONNX model that can be run"):
        recognise(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (["config.json", "model.weights.h5"], "is a Keras model"),
        (["a.npy", "b.npy"], "holds arrays of NumPy"),
        (["readme.txt"], r"no model in it that is known \(readme.txt\)"),
        ([], r"begins like no format|no model in it"),
    ],
)
def test_a_zip_archive_of_something_else_is_told(members, told, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in members:
            archive.writestr(name, b"x")
    (tmp_path / "model.pt").write_bytes(stream.getvalue())
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "is an empty folder"),
        (["saved_model.pb"], "is a TensorFlow SavedModel"),
        (["model.onnx", "notes.txt"], "it holds model.onnx; name the file: .*model.onnx"),
        (["notes.txt"], "it holds notes.txt; name the model's file"),
    ],
)
def test_a_folder_that_is_no_model_says_what_to_name(names, told, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path)


def test_nothing_there_and_no_right_to_read_are_told(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read .No such file"):
        recognise(tmp_path / "model.onnx")


def test_an_entry_point_takes_any_file_and_its_owner_says_what_it_gives(tmp_path):
    (tmp_path / "weights").write_bytes(b"\x80\x04anything")
    hints = Hints(entry_point="support.brightness_teacher:make", outputs=2, image_shape=(1, 8, 8))
    found = recognise(tmp_path / "weights", hints)
    assert (found.kind, found.entry_point, found.outputs, found.missing) == ("python", hints.entry_point, 2, ())
    assert found.weights == b"\x80\x04anything"
    assert recognise(tmp_path / "weights", Hints(entry_point="a:b")).missing[0] == "image_shape"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"normalisation": HALF}, "an entry point takes pixels as they are; leave it out, and normalise in a:b itself"),
        ({"probabilities": False}, "an entry point returns probabilities; leave it out, and apply the softmax in a:b"),
        ({"architecture": "resnet18"}, "architecture='resnet18': means nothing for a model of kind python"),
        ({"output": "y"}, "output='y': means nothing for a model of kind python"),
    ],
)
def test_what_an_entry_point_does_not_follow_is_not_passed_over(said, told, tmp_path):
    (tmp_path / "weights").write_bytes(b"anything")
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path / "weights", Hints(entry_point="a:b", image_shape=(1, 8, 8), **said))
    plain = Hints(entry_point="a:b", image_shape=(1, 8, 8), probabilities=True, normalisation=raw_pixels(1))
    assert recognise(tmp_path / "weights", plain).normalisation == raw_pixels(1)


def test_a_folder_of_other_formats_beside_a_config_json_names_the_file_in_it(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "convnet"}')
    (tmp_path / "student.onnx").write_bytes(b"anything")
    told = "without model.safetensors and pytorch_model.bin.*it holds student.onnx; name the file: .*student.onnx"
    with pytest.raises(ManifestError, match=told):
        recognise(tmp_path)
