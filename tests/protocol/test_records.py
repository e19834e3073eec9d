# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from support.protocol_strategies import messages, same

from fedcpsc.errors import ProtocolError, RefusalCode, VersionError
from fedcpsc.protocol.messages import AnswerForm, DescribeRequest, Query
from fedcpsc.protocol.records import from_records, payload_bytes, refusal_code_of, refusal_error, to_records

QUERY = Query("0" * 32, AnswerForm.LABEL, np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4))


@given(messages)
def test_records_and_back_is_the_same_message(message):
    assert same(from_records(to_records(message)), message)


def test_arrays_read_from_records_may_be_written():
    assert from_records(to_records(QUERY)).images.flags.writeable


@given(st.text(max_size=80))
def test_any_text_in_the_place_of_the_fields_is_refused(text):
    with pytest.raises(ProtocolError):
        from_records(RecordDict({"fedcpsc": ConfigRecord({"message": text})}))


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"fedcpsc": ConfigRecord()}),
        RecordDict({"fedcpsc": ConfigRecord({"message": 3})}),
        RecordDict({"fedcpsc": MetricRecord({"message": 3})}),
        RecordDict({"fedcpsc": ConfigRecord({"message": "[" * 100_000})}),
        RecordDict({"fedcpsc": to_records(QUERY)["fedcpsc"], "arrays": ConfigRecord()}),
        RecordDict({"fedcpsc": to_records(QUERY)["fedcpsc"]}),
    ],
    ids=["empty", "no fields", "number", "metrics", "deep nesting", "arrays are no arrays", "arrays missing"],
)
def test_records_of_another_form_are_refused(records):
    with pytest.raises(ProtocolError):
        from_records(records)


def test_another_major_version_raises_its_own_error():
    records = to_records(DescribeRequest(version="9.0"))
    with pytest.raises(VersionError, match=r"9\.0"):
        from_records(records)


def _with_images(data: bytes, stype: str = "numpy.ndarray") -> RecordDict:
    records = to_records(QUERY)
    records["arrays"] = ArrayRecord({"images": Array("uint8", (2, 1, 4, 4), stype, data)})
    return records


def _npy(array: np.ndarray) -> bytes:
    return Array(array).data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        _npy(QUERY.images)[:-1],
        _npy(QUERY.images) + b"\0",
        _npy(QUERY.images).replace(b"(2, 1, 4, 4)", b"(9, 9, 9, 9)"),
        _npy(QUERY.images).replace(b"(2, 1, 4, 4), }", b"(99999999999,)}"),
        _npy(QUERY.images).replace(b"(2, 1, 4, 4), }", b"(-1, 1, 4, 4),}"),
        _npy(QUERY.images).replace(b"|u1", b"|O8"),
        _npy(QUERY.images.astype(np.int64)),
        _npy(np.asfortranarray(QUERY.images)),
    ],
    ids=["empty", "magic only", "short", "long", "lies", "gigabytes", "negative", "objects", "dtype", "fortran"],
)
def test_array_buffers_that_are_not_exactly_what_they_say_are_refused(data):
    with pytest.raises(ProtocolError):
        from_records(_with_images(data))


def test_payload_is_arrays_and_fields():
    small, large = payload_bytes(to_records(DescribeRequest())), payload_bytes(to_records(QUERY))
    assert 0 < small < 100
    assert QUERY.images.nbytes < large - small < QUERY.images.nbytes + 400


@pytest.mark.parametrize("code", RefusalCode)
def test_refusals_travel_as_error_codes_and_say_no_more_than_the_code(code):
    error = refusal_error(code)
    assert error.code >= 100
    assert error.reason == code.value
    assert refusal_code_of(error) is code


@pytest.mark.parametrize("number", [0, 2, 5, 99, 10_000])
def test_errors_of_flower_itself_are_no_refusals(number):
    assert refusal_code_of(Error(number, "budget")) is None
