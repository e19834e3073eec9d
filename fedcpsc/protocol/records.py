# SPDX-License-Identifier: Apache-2.0
"""Protocol messages as Flower records and back: the library's only contact with Flower's message types.

A message is one `ConfigRecord` with the scalar fields as JSON text, and, where it carries arrays, one `ArrayRecord`.
Arrays are read without NumPy's own loader: only the three dtypes of the protocol, only C order, and only where the
buffer is exactly as long as its header says, so that a few bytes can never claim gigabytes.
"""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict
from numpy.lib import format as npy

from fedcpsc.errors import ProtocolError, RefusalCode, explain
from fedcpsc.protocol.codec import fields_of, from_fields
from fedcpsc.protocol.messages import PROTOCOL_VERSION, Message

__all__ = ["from_records", "payload_bytes", "refusal_code_of", "refusal_error", "to_records"]

_FIELDS, _TEXT, _ARRAYS = "fedcpsc", "message", "arrays"
_DTYPES = (np.dtype("uint8"), np.dtype("uint16"), np.dtype("float32"))
_NPY_VERSION = (1, 0)
# Flower uses error codes below 100 for itself; the numbers are part of the protocol and never change meaning
_ERROR_CODES: dict[RefusalCode, int] = {
    RefusalCode.MALFORMED: 100,
    RefusalCode.VERSION: 101,
    RefusalCode.TOO_MANY_IMAGES: 102,
    RefusalCode.FORM: 103,
    RefusalCode.BUDGET: 104,
    RefusalCode.REPLAY: 105,
    RefusalCode.BUSY: 106,
    RefusalCode.ACTION: 107,
    RefusalCode.INTERNAL: 108,
    RefusalCode.RECIPE: 109,
    RefusalCode.OUT_OF_SERVICE: 110,
    RefusalCode.NO_EVALUATION: 111,
    RefusalCode.STUDENT: 112,
}


def to_records(message: Message) -> RecordDict:
    """A message as the content of a Flower message; `from_records` is its exact inverse."""
    scalars, arrays = fields_of(message)
    records = RecordDict({_FIELDS: ConfigRecord({_TEXT: json.dumps(scalars, allow_nan=False)})})
    if arrays:
        records[_ARRAYS] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return records


def from_records(records: RecordDict) -> Message:
    """The message that `to_records` encoded. Arrays are fresh, writable copies.

    Raises:
        VersionError: for another major version of the protocol.
        ProtocolError: for anything else that is not a message.
    """
    try:
        scalars = json.loads(_config(records)[_TEXT])
        arrays = {name: _ndarray(array) for name, array in _array_record(records).items()}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}") from error
    if not isinstance(scalars, dict):
        raise ProtocolError(explain("fields", scalars, "must be an object", "encode with to_records"))
    return from_fields(scalars, arrays)


def payload_bytes(records: RecordDict) -> int:
    """Bytes of the fields and arrays in `records`, without the transport's own framing."""
    text = sum(len(str(value)) for record in records.config_records.values() for value in record.values())
    data = sum(len(array.data) for record in records.array_records.values() for array in record.values())
    return text + data


def refusal_error(code: RefusalCode) -> Error:
    """The refusal as a Flower error: for messages that are not of this protocol. Its text is the code's name."""
    return Error(_ERROR_CODES[code], code.value)


def refusal_code_of(error: Error) -> RefusalCode | None:
    """The code that `refusal_error` encoded; None where the error comes from Flower itself."""
    return next((code for code, number in _ERROR_CODES.items() if number == error.code), None)


def _config(records: RecordDict) -> Any:
    record = records[_FIELDS]
    if not isinstance(record, ConfigRecord):
        raise TypeError(f"{_FIELDS} is a {type(record).__name__}")
    return record


def _array_record(records: RecordDict) -> dict[str, Array]:
    if _ARRAYS not in records:
        return {}
    record = records[_ARRAYS]
    if not isinstance(record, ArrayRecord):
        raise TypeError(f"{_ARRAYS} is a {type(record).__name__}")
    return dict(record)


def _ndarray(array: Array) -> npt.NDArray[Any]:
    stream = BytesIO(array.data)
    if npy.read_magic(stream) != _NPY_VERSION:
        raise ValueError("array buffer of an unknown version")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    body = memoryview(array.data)[stream.tell() :]
    if fortran_order or dtype not in _DTYPES or len(body) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"array buffer of {len(body)} bytes does not hold {dtype}{list(shape)}")
    return np.frombuffer(body, dtype).reshape(shape).copy()
