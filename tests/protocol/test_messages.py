# SPDX-License-Identifier: Apache-2.0
import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from support.protocol_strategies import answers, claims, descriptions, messages, queries, same

from fedcpsc.errors import ProtocolError, VersionError
from fedcpsc.protocol.codec import fields_of, from_bytes, from_fields, to_bytes
from fedcpsc.protocol.messages import PROTOCOL_VERSION, Answer, AnswerForm, Description, DpClaim, Query, decode_answers

ID = "0" * 32
IMAGES = np.zeros((2, 1, 4, 4), np.uint8)


@given(messages)
def test_bytes_and_back_is_the_same_message(message):
    assert same(from_bytes(to_bytes(message)), message)


@given(messages, st.data())
def test_truncated_bytes_are_refused(message, data):
    whole = to_bytes(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        from_bytes(whole[:cut])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(ProtocolError):
        from_bytes(data)


@given(messages, st.data())
def test_a_flipped_byte_is_a_message_or_refused_never_another_error(message, data):
    raw = bytearray(to_bytes(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        from_bytes(bytes(raw))


scalars_of_any_kind = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(messages, scalars_of_any_kind, st.data())
def test_a_field_of_any_type_is_a_message_or_refused(message, value, data):
    scalars, arrays = fields_of(message)
    name = data.draw(st.sampled_from(sorted(scalars)))
    with suppress(ProtocolError):
        from_fields({**scalars, name: value}, arrays)


@given(messages)
def test_another_major_version_is_refused_by_name(message):
    scalars, arrays = fields_of(message)
    major = int(PROTOCOL_VERSION.partition(".")[0]) + 1
    with pytest.raises(VersionError, match=f"this side speaks {PROTOCOL_VERSION}"):
        from_fields({**scalars, "version": f"{major}.0"}, arrays)


@given(messages)
def test_a_newer_minor_version_with_unknown_fields_is_understood(message):
    scalars, arrays = fields_of(message)
    minor = f"{PROTOCOL_VERSION.partition('.')[0]}.99"
    read = from_fields({**scalars, "version": minor, "colour": "blue"}, {**arrays, "extra": IMAGES})
    assert same(read, replace(message, version=minor))


@given(queries)
def test_missing_arrays_are_refused(query):
    scalars, _ = fields_of(query)
    with pytest.raises(ProtocolError):
        from_fields(scalars, {})


@pytest.mark.parametrize("name", ["query_id", "form"])
def test_missing_fields_are_refused(name):
    scalars, arrays = fields_of(Query(ID, AnswerForm.LABEL, IMAGES))
    del scalars[name]
    with pytest.raises(ProtocolError):
        from_fields(scalars, arrays)


def test_a_header_that_is_no_object_is_refused():
    raw = save({"a": IMAGES}, metadata={"fedcpsc": json.dumps([1, 2])})
    with pytest.raises(ProtocolError, match="header"):
        from_bytes(raw)


@pytest.mark.parametrize("query_id", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n"])
def test_query_ids_are_32_lower_case_hex_digits(query_id):
    with pytest.raises(ProtocolError, match="query_id"):
        Query(query_id, AnswerForm.LABEL, IMAGES)


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES[:0], IMAGES.astype(np.float32)], ids=["3d", "empty", "float"])
def test_images_of_the_wrong_shape_or_type_are_refused(images):
    with pytest.raises(ProtocolError, match="images"):
        Query(ID, AnswerForm.LABEL, images)


def test_the_payload_hash_knows_form_shape_and_pixels():
    base = Query(ID, AnswerForm.LABEL, IMAGES)
    pixel = IMAGES.copy()
    pixel[0, 0, 0, 0] = 1
    others = [
        Query(ID, AnswerForm.TOP_K, IMAGES),
        Query(ID, AnswerForm.LABEL, IMAGES.reshape(2, 1, 2, 8)),
        Query(ID, AnswerForm.LABEL, pixel),
    ]
    assert len({base.payload_hash, *(other.payload_hash for other in others)}) == 4
    assert Query("f" * 32, AnswerForm.LABEL, IMAGES, run="x", principal="y").payload_hash == base.payload_hash


@pytest.mark.parametrize(
    ("form", "values", "indices"),
    [
        (AnswerForm.LABEL, np.zeros((2, 3), np.uint16), None),
        (AnswerForm.LABEL, np.zeros(2, np.uint8), None),
        (AnswerForm.LABEL, np.full(2, 3, np.uint16), None),  # class 3 of 3
        (AnswerForm.PROBABILITIES, np.zeros((2, 4), np.uint8), None),  # 4 columns, 3 classes
        (AnswerForm.PROBABILITIES, np.zeros((2, 3), np.float64), None),
        (AnswerForm.PROBABILITIES, np.zeros((0, 3), np.uint8), None),
        (AnswerForm.PROBABILITIES, np.full((2, 3), np.nan, np.float32), None),
        (AnswerForm.PROBABILITIES, np.full((2, 3), np.inf, np.float32), None),
        (AnswerForm.PROBABILITIES, np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint16)),
        (AnswerForm.TOP_K, np.zeros((2, 2), np.uint8), None),
        (AnswerForm.TOP_K, np.zeros((2, 2), np.uint8), np.zeros((2, 1), np.uint16)),
        (AnswerForm.TOP_K, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int64)),
        (AnswerForm.TOP_K, np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint16)),
    ],
)
def test_answers_that_do_not_fit_their_form_are_refused(form, values, indices):
    with pytest.raises(ProtocolError):
        Answer(ID, form, 3, values, 0, indices)


@given(descriptions, st.sampled_from([0, 1, 2**16 + 1]))
def test_a_description_needs_at_least_two_classes_and_indices_that_fit(description, classes):
    with pytest.raises(ProtocolError, match="classes"):
        replace(description, classes=classes)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "\u202enorth", "x" * 10_000])
def test_a_name_that_would_steer_a_terminal_or_a_log_is_refused_on_the_wire(name):
    said = Description("north", 2, (1, 4, 4), (AnswerForm.LABEL,), 10, 10, 10, claim=DpClaim(mechanism="none"))
    for odd in (replace(said, silo=name), replace(said, claim=DpClaim(unit=name or "\0"))):
        with pytest.raises(ProtocolError):
            from_fields(*fields_of(odd))
    assert from_fields(*fields_of(replace(said, silo="Klinik [Süd] $1$"))).silo == "Klinik [Süd] $1$"


@given(claims)
def test_a_claim_without_epsilon_is_refused_on_the_wire(claim):
    bare = Description("a", 2, (1, 4, 4), (AnswerForm.LABEL,), 10, 10, 10, claim=replace(claim, epsilon=None))
    scalars, arrays = fields_of(bare)
    if claim.dp:
        with pytest.raises(ProtocolError, match="epsilon"):
            from_fields(scalars, arrays)
    else:
        assert same(from_fields(scalars, arrays), bare)


@pytest.mark.parametrize(
    "claim",
    [
        {"dp": True, "epsilon": -1.0},
        {"dp": True, "epsilon": 0.0},
        {"dp": True, "epsilon": "1"},
        {"dp": "yes"},
        {"mechanism": None},
        {"mechanism": 3},
        {"unknown": 1},
        [],
    ],
)
def test_malformed_claims_are_refused(claim):
    scalars, arrays = fields_of(Answer(ID, AnswerForm.LABEL, 2, np.zeros(1, np.uint16), 0))
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "claim": claim}, arrays)


@given(answers())
def test_decoded_answers_are_distributions(answer):
    dense = decode_answers(answer)
    assert dense.shape == (answer.count, answer.classes)
    assert dense.dtype == np.float32
    assert (dense >= 0).all()
    np.testing.assert_allclose(dense.sum(1), 1.0, atol=1e-5)


def test_labels_decode_to_one_hot():
    answer = Answer(ID, AnswerForm.LABEL, 3, np.array([2, 0], np.uint16), 0)
    np.testing.assert_array_equal(decode_answers(answer), [[0, 0, 1], [1, 0, 0]])


def test_top_k_spreads_the_unseen_mass_evenly():
    values = np.array([[153, 51]], np.uint8)  # 0.6 and 0.2
    answer = Answer(ID, AnswerForm.TOP_K, 4, values, 0, np.array([[3, 1]], np.uint16))
    np.testing.assert_allclose(decode_answers(answer), [[0.1, 0.2, 0.1, 0.6]], atol=1e-6)


def test_noise_is_clipped_and_renormalised_and_an_empty_row_is_uniform():
    values = np.array([[-0.5, 1.5, 1.0], [-1, -1, 0]], np.float32)
    answer = Answer(ID, AnswerForm.PROBABILITIES, 3, values, 0, claim=DpClaim(True, 1.0))
    np.testing.assert_allclose(decode_answers(answer), [[0, 0.5, 0.5], [1 / 3] * 3], atol=1e-6)


def test_eight_bit_probabilities_lose_at_most_half_a_level():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(10), 200).astype(np.float32)
    answer = Answer(ID, AnswerForm.PROBABILITIES, 10, np.rint(p * 255).astype(np.uint8), 0)
    assert np.abs(decode_answers(answer) - p).max() < 0.025  # rounding, then renormalising over ten classes


NAMED = Description(
    "north", 4, (1, 4, 4), (AnswerForm.LABEL,), 8, 9, 9, class_names=("ant", "bee", "cat"), none_class=True
)


@pytest.mark.parametrize("newer", [("class_names",), ("none_class",), ("class_names", "none_class"), ("recipes",)])
def test_a_description_of_an_older_silo_names_no_classes(newer):
    scalars, arrays = fields_of(NAMED)
    old = {name: value for name, value in scalars.items() if name not in newer} | {"version": "1.1"}
    if "none_class" in newer:
        old["classes"] = 3
    read = from_fields(old, arrays)
    assert isinstance(read, Description)
    assert read.class_names == (None if "class_names" in newer else NAMED.class_names)
    assert read.none_class == ("none_class" not in newer)


def test_an_older_server_reads_what_it_knows_of_a_named_silo():
    scalars, _ = fields_of(NAMED)
    assert scalars["classes"] == 4, "also the column for none of them: an older server then refuses, and mixes nothing"
    unknown = {"class_names", "none_class"}  # which 1.1 drops by its own rule for fields of a newer minor version
    assert unknown <= scalars.keys()
    assert json.loads(json.dumps(scalars))["class_names"] == ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    "names",
    [
        "abc",
        7,
        {"0": "ant"},
        [],
        ["ant", "bee"],
        ["ant", "bee", "cat", "dog"],
        ["ant", "bee", 3],
        ["ant", "bee", None],
        ["ant", "bee", ["cat"]],
        ["ant", "bee", "bee"],
        ["ant", "bee", "B EE"],
        ["ant", "bee", "x" * 101],
        ["ant", "bee", "x" * 10**7],
        ["ant", "bee", "c\x00"],
        ["ant", "bee", "\u202etac"],
        ["ant"] * 2**17,
    ],
    ids=lambda names: str(names)[:20],
)
def test_class_names_of_a_hostile_description_are_refused(names):
    scalars, arrays = fields_of(NAMED)
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "class_names": names}, arrays)


@pytest.mark.parametrize("flag", [1, "true", None, [True]])
def test_a_none_class_that_is_no_flag_is_refused(flag):
    scalars, arrays = fields_of(NAMED)
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "none_class": flag}, arrays)


def test_a_silo_that_does_not_say_whether_its_answers_may_be_handed_on_has_not_agreed():
    scalars, arrays = fields_of(replace(NAMED, share_answers=True))
    assert scalars["share_answers"] is True
    assert from_fields(scalars, arrays).share_answers
    older = {name: value for name, value in scalars.items() if name != "share_answers"} | {"version": "1.2"}
    assert not from_fields(older, arrays).share_answers


@pytest.mark.parametrize("flag", [1, "true", None, [True]])
def test_consent_that_is_no_flag_is_refused(flag):
    scalars, arrays = fields_of(NAMED)
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "share_answers": flag}, arrays)
