# SPDX-License-Identifier: Apache-2.0
"""The messages of federated evaluation: to bytes, to Flower's records, and back; what is out of bounds is none."""

import dataclasses

import numpy as np
import pytest

from fedcpsc.errors import ProtocolError
from fedcpsc.protocol.codec import fields_of, from_bytes, from_fields, to_bytes
from fedcpsc.protocol.evaluation import EvaluationAnswer, EvaluationOffer, EvaluationQuery, PerClassCounts
from fedcpsc.protocol.messages import AnswerForm, Description, DpClaim
from fedcpsc.protocol.records import from_records, to_records

ID = "0" * 31 + "1"
WEIGHTS = np.arange(9, dtype=np.uint8)
QUERY = EvaluationQuery(ID, "convnet", 4, 3, (1, 8, 8), (2, 0), WEIGHTS, ("ant", "bee"), run="r")
CLAIM = DpClaim(True, 2.0, 1e-5, "record", "add_remove", "dp_sgd")
ANSWER = EvaluationAnswer(ID, -3, 4.5, None, 7, CLAIM)
OFFER = EvaluationOffer(10, 7, 4.5, 120, 10**6, per_class=True)
COUNTS = PerClassCounts((60, -2), (50, 1), (55, 7))


@pytest.mark.parametrize(("encode", "decode"), [(to_bytes, from_bytes), (to_records, from_records)])
def test_both_messages_come_back_as_they_were(encode, decode):
    back = decode(encode(QUERY))
    assert isinstance(back, EvaluationQuery)
    np.testing.assert_array_equal(back.weights, QUERY.weights)
    assert back.payload_hash == QUERY.payload_hash
    assert {**vars(back), "weights": None} == {**vars(QUERY), "weights": None}
    assert decode(encode(ANSWER)) == ANSWER
    by_class = dataclasses.replace(ANSWER, per_class=COUNTS)
    assert decode(encode(by_class)) == by_class


def test_a_description_tells_of_evaluation_and_one_of_an_earlier_version_of_none():
    said = Description("north", 3, (1, 8, 8), (AnswerForm.LABEL,), 10, 20, 20, evaluation=OFFER)
    assert from_bytes(to_bytes(said)) == said
    scalars, arrays = fields_of(said)
    del scalars["evaluation"]
    earlier = from_fields({**scalars, "version": "1.3"}, arrays)
    assert isinstance(earlier, Description)
    assert earlier.evaluation is None
    del (offer := dict(vars(OFFER)))["per_class"]
    before = from_fields({**scalars, "evaluation": offer, "version": "1.4"}, arrays)
    assert before.evaluation == dataclasses.replace(OFFER, per_class=False)


@pytest.mark.parametrize(
    "told",
    [
        {"images": [1, 2], "right": [1], "predicted": [1, 2]},
        {"images": [1, 2, 3], "right": [1, 2, 3], "predicted": [1, 2]},
        {"images": [], "right": [], "predicted": [1, 2]},
        {"images": [1, 2], "right": [1, 2], "predicted": [1, 2, 3]},
        {"images": [1.5], "right": [1], "predicted": [1]},
        {"images": [True], "right": [1], "predicted": [1]},
        {"images": [2**60], "right": [1], "predicted": [1]},
        {"images": "11", "right": [1, 1], "predicted": [1, 2]},
        {"images": [1], "right": [1]},
        [1, 2, 3],
        7,
    ],
)
def test_counts_by_class_that_are_none_are_no_message(told):
    scalars, arrays = fields_of(ANSWER)
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "per_class": told}, arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet18"},
        {"width": 5},
        {"classes": 4},
        {"image_shape": (1, 8, 9)},
        {"outputs": (0, 2)},
        {"weights": WEIGHTS[::-1].copy()},
        {"class_names": ("ant", "cat")},
    ],
)
def test_whatever_decides_the_answer_is_in_the_payloads_hash(change):
    assert dataclasses.replace(QUERY, **change).payload_hash != QUERY.payload_hash
    assert dataclasses.replace(QUERY, run="other").payload_hash == QUERY.payload_hash


@pytest.mark.parametrize(
    "change",
    [
        {"query_id": "7"},
        {"width": 0},
        {"width": 2**20},
        {"classes": 1},
        {"outputs": ()},
        {"outputs": (0, 0)},
        {"outputs": (0, 3)},
        {"image_shape": (0, 8, 8)},
        {"weights": np.zeros(0, np.uint8)},
        {"weights": np.zeros(3, np.float32)},
    ],
)
def test_a_student_out_of_bounds_is_no_message(change):
    with pytest.raises(ProtocolError):
        dataclasses.replace(QUERY, **change)


@pytest.mark.parametrize(
    "fields", [{"right": 2**60}, {"right": 0.5}, {"sigma": -1.0}, {"sigma": 1e200}, {"held_out": 0}, {"right": True}]
)
def test_an_answer_out_of_bounds_is_no_message(fields):
    scalars, arrays = fields_of(ANSWER)
    with pytest.raises(ProtocolError):
        from_fields({**scalars, **fields}, arrays)


@pytest.mark.parametrize("offer", [{"total": 0}, {"sigma": float("nan")}, {"held_out": 0}, {"left": "many"}, {}])
def test_an_offer_out_of_bounds_is_no_message(offer):
    scalars, arrays = fields_of(Description("north", 3, (1, 8, 8), (AnswerForm.LABEL,), 10, 20, 20))
    given = {**vars(OFFER), **offer} if offer else {"total": 1}
    with pytest.raises(ProtocolError):
        from_fields({**scalars, "evaluation": given}, arrays)
