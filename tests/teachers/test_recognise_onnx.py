# SPDX-License-Identifier: Apache-2.0
"""ONNX files as exporters write them: made whole, told apart by what they take and give, or refused with the reason."""

import os

import numpy as np
import pytest
from support.own_models import HALF, answers_of, silo_of

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.image_input import raw_pixels
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.recognise import Hints, recognise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHAPE = (1, 8, 8)
WEIGHT = np.random.default_rng(1).normal(size=(64, 10)).astype(np.float32) * 0.3
GIVEN = np.random.default_rng(2).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
TYPES = {np.float32: 1, np.float16: 10, np.float64: 11, np.uint8: 2, np.int64: 7}


def model(
    path, *, dtype=np.float32, dims=("n", *SHAPE), end=(), outputs=("logits",), opset=17, ir=9, inputs=1, weight=WEIGHT
):
    """Writes a linear classifier; `end` are names of operators after the logits. Returns the path."""
    make, helper = onnx.helper.make_node, onnx.helper
    inner = dtype if dtype in (np.float16, np.float64) else np.float32
    nodes = [make("Flatten", ["x"], ["flat"])]
    if dtype is np.uint8:
        scale = onnx.numpy_helper.from_array(np.array(255, np.float32), "scale")
        nodes += [make("Cast", ["flat"], ["cast"], to=1), make("Div", ["cast", "scale"], ["unit"])]
    else:
        scale = None
        nodes += [make("Identity", ["flat"], ["unit"])]
    last = "logits" if not end else "logits0"
    nodes += [make("MatMul", ["unit", "w"], [last])]
    for number, operator in enumerate(end):
        then = "logits" if number == len(end) - 1 else f"logits{number + 1}"
        options = {"axis": 1} if "Softmax" in operator else {}
        nodes += [make(operator, [last], [then], **options)]
        last = then
    number = len(weight[0])
    infos = {"logits": ["n", number], "unit": ["n", 64], "flat": ["n", 64]}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TYPES[dtype], list(dims))]
        + [helper.make_tensor_value_info(f"more{index}", 1, [1]) for index in range(inputs - 1)],
        [helper.make_tensor_value_info(name, TYPES[inner], infos[name]) for name in outputs],
        [onnx.numpy_helper.from_array(weight.astype(inner), "w")] + ([scale] if scale is not None else []),
    )
    if inputs > 1:
        graph.node.append(make("Identity", ["more0"], ["unused"]))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    path.write_bytes(made.SerializeToString())
    return path


def expected(scale=0.5, shift=0.5):
    logits = ((GIVEN.reshape(5, 64) / 255 - shift) / scale) @ WEIGHT
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def keep_outside(path, location, write=True):
    """Moves the weights to another file, as `location` names it."""
    made = onnx.load(path)
    (tensor,) = made.graph.initializer
    if write:
        (path.parent / location).write_bytes(b"pad." + tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location, offset=4, length=len(WEIGHT.tobytes()))
    tensor.ClearField("raw_data")
    path.write_bytes(made.SerializeToString())
    return path


def test_a_plain_model_says_its_shape_and_classes_and_that_it_gives_logits(tmp_path):
    found = recognise(model(tmp_path / "any.name"))
    assert (found.kind, found.outputs, found.image_shape, found.channels) == ("onnx", 10, SHAPE, 1)
    assert (found.probabilities, found.fixed_batch, found.notes) == (False, None, ())
    assert found.missing == ("normalisation",)
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)


def test_weights_beside_the_model_are_folded_into_one_file(tmp_path):
    found = recognise(keep_outside(model(tmp_path / "model.onnx"), "model.onnx.data"))
    assert "model.onnx.data were put into the model" in found.notes[0]
    (tmp_path / "model.onnx.data").unlink()
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "", "..", "a\\..\\b"])
def test_weights_outside_the_models_folder_are_never_read(location, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 10_000)
    inside = tmp_path / "inside"
    inside.mkdir()
    path = keep_outside(model(inside / "model.onnx"), location, write=False)
    with pytest.raises(ManifestError, match="outside its own folder|is not there"):
        recognise(path)


def test_a_symbolic_link_beside_the_model_is_not_followed(tmp_path):
    path = keep_outside(model(tmp_path / "model.onnx"), "model.onnx.data")
    (tmp_path / "model.onnx.data").rename(tmp_path / "elsewhere")
    os.symlink("elsewhere", tmp_path / "model.onnx.data")
    with pytest.raises(ManifestError, match="symbolic link, which is not followed; copy the file itself there"):
        recognise(path)


def test_a_pipe_beside_the_model_is_not_waited_for(tmp_path):
    path = keep_outside(model(tmp_path / "model.onnx"), "model.onnx.data")
    (tmp_path / "model.onnx.data").unlink()
    os.mkfifo(tmp_path / "model.onnx.data")
    with pytest.raises(ManifestError, match="is not there"):
        recognise(path)


def test_weights_that_are_missing_or_cut_off_are_named(tmp_path):
    path = keep_outside(model(tmp_path / "model.onnx"), "model.onnx.data")
    data = (tmp_path / "model.onnx.data").read_bytes()
    (tmp_path / "model.onnx.data").write_bytes(data[:-1])
    with pytest.raises(ManifestError, match="too short for the tensor 'w'.*copy it again"):
        recognise(path)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ManifestError, match="'model.onnx.data', which is not there; put the model and the files"):
        recognise(path)


def test_one_small_file_named_a_thousand_times_does_not_fill_the_memory(tmp_path):
    path = model(tmp_path / "model.onnx")
    made = onnx.load(path)
    (tmp_path / "model.onnx.data").write_bytes(b"\0" * (4 << 20))
    for number in range(600):
        tensor = onnx.TensorProto(name=f"t{number}", data_type=1, dims=[1 << 20])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.onnx.data")
        made.graph.initializer.append(tensor)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ManifestError, match="one ONNX file holds at most 2047"):
        recognise(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_cast_to(dtype, tmp_path):
    found = recognise(model(tmp_path / "model.onnx", dtype=dtype))
    assert f"takes {dtype.__name__}: pixels are cast" in found.notes[0]
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5 if dtype is np.float64 else 5e-3)


def test_a_uint8_input_takes_pixels_as_they_are_and_says_so(tmp_path):
    found = recognise(model(tmp_path / "model.onnx", dtype=np.uint8))
    assert found.normalisation == raw_pixels(1)
    assert "takes uint8, pixels as they are" in found.notes[0]
    np.testing.assert_allclose(answers_of(found, tmp_path / "silo", GIVEN), expected(1, 0), atol=1e-5)


def test_a_uint8_input_with_a_normalisation_is_refused_when_adopted_and_when_opened(tmp_path):
    path = model(tmp_path / "model.onnx", dtype=np.uint8)
    with pytest.raises(ManifestError, match="takes uint8, pixels as they are, and normalises them itself"):
        recognise(path, Hints(normalisation=HALF))
    manifest = silo_of(recognise(path), tmp_path / "silo", normalisation=HALF)
    with pytest.raises(ManifestError, match="takes uint8.*the manifest's normalisation says otherwise; set mean 0"):
        open_teacher(tmp_path / "silo", manifest)


def test_a_type_that_holds_no_pixels_is_refused(tmp_path):
    path = model(tmp_path / "model.onnx", dtype=np.int64)
    made = onnx.load(path)
    made.graph.node[1].CopyFrom(onnx.helper.make_node("Cast", ["flat"], ["unit"], to=1))
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ManifestError, match=r"takes tensor\(int64\).*export it with a float32 input"):
        recognise(path)


def test_a_fixed_batch_is_run_in_pieces_and_filled_up(tmp_path):
    found = recognise(model(tmp_path / "model.onnx", dims=(3, *SHAPE)))
    assert found.fixed_batch == 3
    assert "3 images at a time" in found.notes[0]
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)


def test_channels_last_is_transposed_to_where_the_shape_says_so(tmp_path):
    weight = WEIGHT.reshape(1, 8, 8, 10).transpose(1, 2, 0, 3).reshape(64, 10)
    found = recognise(model(tmp_path / "model.onnx", dims=("n", 8, 8, 1), weight=weight))
    assert found.image_shape == SHAPE
    assert "channels last" in found.notes[0]
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "said", "wanted"),
    [
        ((4, 32, 32), None, (4, 32, 32)),
        ((32, 32, 4), None, (4, 32, 32)),
        ((3, 3, 3), None, (3, 3, 3)),
        ((3, 20, 30), None, (3, 20, 30)),
        ((20, 30, 3), None, (3, 20, 30)),
        ((None, 20, 3), (3, 40, 20), (3, 40, 20)),
        ((None, None, None), (3, 40, 20), (3, 40, 20)),
    ],
)
def test_where_the_channels_are_follows_from_the_sizes(sizes, said, wanted):
    from fedcpsc.teachers.image_input import image_input

    assert image_input("x", np.float32, [None, *sizes], "m", said).image_shape == wanted


@pytest.mark.parametrize("last", [True, False])
def test_where_sizes_are_free_the_names_of_the_axes_say_where_the_channels_are(last, tmp_path):
    rng = np.random.default_rng(5)
    weight, given = rng.normal(size=(75, 4)).astype(np.float32), rng.integers(0, 256, (6, 3, 5, 5), dtype=np.uint8)
    dims = ("N", "Height", "width", "channels") if last else ("batch_size", "num_channels", "height", "width")
    found = recognise(model(tmp_path / "model.onnx", dims=dims, weight=weight), Hints(image_shape=(3, 5, 5)))
    assert ["channels last" in note for note in found.notes] == [True] * last
    pixels = (given.transpose(0, 2, 3, 1) if last else given).reshape(6, 75) / 255
    powers = np.exp(pixels @ weight)
    answers = answers_of(found, tmp_path / "silo", given, normalisation={"mean": [0.0] * 3, "std": [1.0] * 3})
    np.testing.assert_allclose(answers, powers / powers.sum(1, keepdims=True), atol=1e-5)


def test_an_order_of_the_axes_that_follows_from_nothing_is_told(tmp_path):
    path = model(tmp_path / "model.onnx", dims=("n", "a", "b", "c2"), weight=np.ones((75, 4), np.float32))
    told = "the model does not say the order of its axes: channels first [N, C, H, W] was taken"
    assert told in recognise(path, Hints(image_shape=(3, 5, 5))).notes
    known = model(tmp_path / "known.onnx", dims=("n", 3, "b", "c2"), weight=np.ones((75, 4), np.float32))
    assert told not in recognise(known, Hints(image_shape=(3, 5, 5))).notes


def test_an_output_of_text_is_explained(tmp_path):
    path = model(tmp_path / "model.onnx")
    made = onnx.load(path)
    labels = {"keys_int64s": [0, 1], "values_strings": ["cat", "dog"], "domain": "ai.onnx.ml"}
    made.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=1))
    made.graph.node.append(onnx.helper.make_node("LabelEncoder", ["best"], ["name"], **labels))
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("name", onnx.TensorProto.STRING, ["n", 1]))
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ManifestError, match=r"gives tensor\(string\) \(name\), must give numbers"):
        recognise(path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"output": "features"}, "'features': is no output of this model; name one of 'logits'"),
        ({"architecture": "resnet18"}, "architecture='resnet18': means nothing for a model of kind onnx; leave it out"),
        ({"width": 7}, "width=7: means nothing for a model of kind onnx"),
    ],
)
def test_what_means_nothing_for_an_onnx_model_is_not_passed_over(said, told, tmp_path):
    with pytest.raises(ManifestError, match=told):
        recognise(model(tmp_path / "model.onnx"), Hints(**said))


def test_sizes_that_could_be_either_are_asked_for_and_others_than_said_are_refused():
    from fedcpsc.teachers.image_input import image_input

    with pytest.raises(ManifestError, match="of which any could be the channels; say the shape as"):
        image_input("x", np.float32, [None, 5, 6, 7], "m", None)
    with pytest.raises(ManifestError, match=r"takes images of shape \(3, 8, 8\), must take image_shape=\(1, 8, 8\)"):
        image_input("x", np.float32, [None, 3, 8, 8], "m", (1, 8, 8))
    assert image_input("x", np.float32, [None, None, None, None], "m", None).image_shape is None


def test_a_model_with_free_sides_asks_for_them(tmp_path):
    path = model(tmp_path / "model.onnx", dims=("n", 1, "h", "w"))
    found = recognise(path)
    assert found.missing == ("image_shape", "normalisation", "probabilities")
    assert recognise(path, Hints(image_shape=SHAPE)).missing == ("normalisation",)


def test_softmax_inside_is_seen_and_not_applied_twice(tmp_path):
    found = recognise(model(tmp_path / "model.onnx", end=("Softmax",)))
    assert found.probabilities is True
    assert "probabilities already" in found.notes[0]
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)
    twice = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF, probabilities=False)
    assert np.abs(twice - expected()).max() > 0.1


def test_log_softmax_is_right_as_it_is(tmp_path):
    found = recognise(model(tmp_path / "model.onnx", end=("LogSoftmax",)))
    assert found.probabilities is False
    assert "logarithms of probabilities: right as they are" in found.notes[0]
    answers = answers_of(found, tmp_path / "silo", GIVEN, normalisation=HALF)
    np.testing.assert_allclose(answers, expected(), atol=1e-5)


def test_a_sigmoid_for_each_class_is_refused_unless_its_owner_says_that_they_are_logits(tmp_path):
    path = model(tmp_path / "model.onnx", end=("Sigmoid",))
    with pytest.raises(ManifestError, match=r"lie in \[0, 1\] and do not sum to 1"):
        recognise(path)
    assert recognise(path, Hints(probabilities=False)).probabilities is False


def test_what_is_no_probability_is_not_taken_for_one(tmp_path):
    with pytest.raises(ManifestError, match="are logits as far as a trial shows"):
        recognise(model(tmp_path / "model.onnx"), Hints(probabilities=True))


def test_of_two_outputs_the_one_of_the_right_width_is_used_and_none_is_guessed(tmp_path):
    path = model(tmp_path / "model.onnx", outputs=("flat", "logits"))
    with pytest.raises(ManifestError, match=r"has 2 outputs \(flat \['n', 64\], logits \['n', 10\]\); say which"):
        recognise(path)
    by_width, by_name = recognise(path, Hints(outputs=10)), recognise(path, Hints(output="logits"))
    assert by_width.outputs == by_name.outputs == 10
    assert "of its outputs, logits is used" in by_width.notes[0]
    assert "the output logits is used, the others were left out" in by_name.notes[0]
    for number, found in enumerate((by_width, by_name)):
        answers = answers_of(found, tmp_path / f"silo{number}", GIVEN, normalisation=HALF)
        np.testing.assert_allclose(answers, expected(), atol=1e-5)
    with pytest.raises(ManifestError, match="is no output of this model; name one of 'flat', 'logits'"):
        recognise(path, Hints(output="probabilities"))
    alike = model(tmp_path / "alike.onnx", outputs=("flat", "unit"))
    with pytest.raises(ManifestError, match=r"of which not exactly one is \[N, 64\]"):
        recognise(alike, Hints(outputs=64))


def test_two_inputs_are_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"takes 2 inputs \(x, more0\), must take images alone"):
        recognise(model(tmp_path / "model.onnx", inputs=2))


def test_another_number_of_classes_than_named_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="number of classes=7: the model has 10; name exactly the classes"):
        recognise(model(tmp_path / "model.onnx"), Hints(outputs=7))


def test_one_output_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="one output cannot tell two classes apart"):
        recognise(model(tmp_path / "model.onnx", weight=WEIGHT[:, :1]))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"ir": 99}, r"has ONNX IR version 99, and onnxruntime [\d.]+ takes up to \d+; upgrade onnxruntime"),
        (
            {"opset": 99},
            r"uses opset 99 of ai.onnx, and onnxruntime [\d.]+ takes up to \d+; upgrade.*opset_version=\d+",
        ),
    ],
)
def test_a_model_newer_than_onnxruntime_is_told_with_both_versions(facts, told, tmp_path):
    with pytest.raises(ManifestError, match=told):
        recognise(model(tmp_path / "model.onnx", **facts))


def test_outputs_that_are_nan_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="are NaN or inf on invented images"):
        recognise(model(tmp_path / "model.onnx", weight=WEIGHT * np.nan))


def test_weights_that_nothing_reads_from_are_told(tmp_path):
    found = recognise(model(tmp_path / "model.onnx", weight=WEIGHT * 0))
    assert "the same for every invented image" in found.notes[0]
    assert found.missing == ("normalisation", "probabilities")
