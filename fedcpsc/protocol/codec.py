# SPDX-License-Identifier: Apache-2.0
"""Messages as fields and as bytes, and back: exact inverses, and nothing but messages comes out.

`fields_of`/`from_fields` give JSON-able scalars and named arrays, what every transport carries. `to_bytes`/`from_bytes`
put them into one safetensors buffer whose metadata hold the scalars: what a socket carries and the ledger stores. No
decoder here ever executes anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fedcpsc.errors import ProtocolError, RefusalCode, explain
from fedcpsc.protocol.messages import (
    MAX_CLASSES,
    PROTOCOL_VERSION,
    TEXT_LIMIT,
    Answer,
    AnswerForm,
    Array,
    ClassReport,
    DescribeRequest,
    Description,
    DpClaim,
    EvaluationAnswer,
    EvaluationOffer,
    EvaluationQuery,
    Message,
    PerClassCounts,
    Query,
    RecipeQuery,
    Refusal,
    check_version,
)
from fedcpsc.protocol.recipe import Recipe, Scalars

__all__ = ["fields_of", "from_bytes", "from_fields", "to_bytes"]

_KINDS: dict[str, type[Any]] = {
    "describe": DescribeRequest,
    "description": Description,
    "query": Query,
    "recipe_query": RecipeQuery,
    "answer": Answer,
    "evaluation_query": EvaluationQuery,
    "evaluation_answer": EvaluationAnswer,
    "refusal": Refusal,
}
_ARRAYS = ("images", "values", "indices", "weights")


def fields_of(message: Message) -> tuple[Scalars, dict[str, Array]]:
    """A message as JSON-able scalars (with its `kind`) and named arrays: what every transport carries."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(message, cls))
    scalars: Scalars = {"kind": kind}
    arrays: dict[str, Array] = {}
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if name in _ARRAYS:
            if value is not None:
                arrays[name] = np.ascontiguousarray(value)
        elif isinstance(value, Recipe):
            scalars[name], parts = value.to_fields()
            arrays |= {part: np.ascontiguousarray(array) for part, array in parts.items()}
        elif isinstance(value, DpClaim | EvaluationOffer | PerClassCounts):
            scalars[name] = vars(value)
        elif isinstance(value, ClassReport):
            scalars[name] = {"counts": list(value.counts), "dp": vars(value.dp)}
        else:
            scalars[name] = value
    return scalars, arrays


def from_fields(scalars: dict[str, Any], arrays: dict[str, Array]) -> Message:
    """Inverse of `fields_of`.

    Raises:
        VersionError: for another major version.
        ProtocolError: for anything that is not exactly a message of this protocol.
    """
    try:
        given = {**scalars}
        cls = _KINDS[given.pop("kind")]
        check_version(str(given.get("version", PROTOCOL_VERSION)))
        known = cls.__dataclass_fields__
        if cls is RecipeQuery:
            given["recipe"] = Recipe.of_fields(given["recipe"], arrays)
            arrays = {}
        # a newer minor version may carry fields unknown here: they are dropped, not trusted
        given = {name: value for name, value in given.items() if name in known}
        given |= {name: value for name, value in arrays.items() if name in known}
        given = {name: _READERS[name](value) if name in _READERS else value for name, value in given.items()}
        message: Message = cls(**given)
        return message
    except ProtocolError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}") from error


def to_bytes(message: Message) -> bytes:
    """The message as a safetensors buffer."""
    scalars, arrays = fields_of(message)
    return save_tensors(arrays, metadata={"fedcpsc": json.dumps(scalars, allow_nan=False)})


def from_bytes(data: bytes) -> Message:
    """Inverse of `to_bytes`.

    Raises:
        ProtocolError: for anything else.
    """
    try:
        header_size = int.from_bytes(data[:8], "little")
        if not 0 < header_size <= len(data) - 8:
            raise ProtocolError(explain("bytes", len(data), "shorter than their header says", "send the whole message"))
        scalars = json.loads(json.loads(data[8 : 8 + header_size])["__metadata__"]["fedcpsc"])
        arrays = load_tensors(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL_VERSION}: {error}") from error
    if not isinstance(scalars, dict):
        raise ProtocolError(explain("header", scalars, "must be an object", "encode with to_bytes"))
    return from_fields(scalars, arrays)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ProtocolError(explain("number", value, "must be a whole number >= 0", "check the sender"))
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(explain("flag", value, "must be true or false", "check the sender"))
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ProtocolError(explain("number", value, "must be finite and >= 0", "check the sender"))
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LIMIT:
        raise ProtocolError(explain("text", value, f"must be text of at most {TEXT_LIMIT} characters", "shorten it"))
    return value


def _name(value: object) -> str:
    """Text that people are shown: without line breaks and escape codes, which would steer their terminals and logs."""
    if not value or not _is_shown(value):
        raise ProtocolError(explain("name", value, f"must be 1 to {TEXT_LIMIT} printable characters", "rename it"))
    return str(value)


def _is_shown(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= TEXT_LIMIT


def _claim(value: dict[str, Any]) -> DpClaim:
    claim = DpClaim(**value)
    numbers = [_number(number) for number in (claim.epsilon, claim.delta) if number is not None]
    texts = [text for text in (claim.unit, claim.relation, claim.mechanism) if text is not None]
    if not all(_is_shown(text) for text in texts):
        raise ProtocolError(explain("claim", value, "its words must be printable text", "rename them"))
    good = isinstance(claim.dp, bool) and claim.mechanism is not None
    if not good or (claim.dp and (claim.epsilon is None or min(numbers) <= 0)):
        raise ProtocolError(explain("claim", value, "a dp claim needs epsilon > 0", "state epsilon or dp=False"))
    return claim


def _class_report(value: dict[str, Any] | None) -> ClassReport | None:
    if value is None:
        return None
    return ClassReport(tuple(_number(count) for count in value["counts"]), _claim(value["dp"]))


def _image_shape(value: list[object]) -> tuple[int, int, int]:
    channels, height, width = (_whole(size) for size in value)
    return channels, height, width


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        raise ProtocolError(explain("number", value, "must be a whole number", "check the sender"))
    return value


def _places(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_CLASSES:
        raise ProtocolError(explain("outputs", type(value).__name__, "must be a list of numbers", "check the sender"))
    return tuple(map(_whole, value))


def _offer(value: dict[str, Any] | None) -> EvaluationOffer | None:
    if value is None:
        return None
    return EvaluationOffer(
        total=_whole(value["total"]),
        left=_whole(value["left"]),
        sigma=_number(value["sigma"]),
        held_out=_whole_or_none(value["held_out"]),
        max_bytes=_whole(value["max_bytes"]),
        per_class=_flag(value.get("per_class", False)),  # missing before version 1.5
    )


def _per_class(value: dict[str, Any] | None) -> PerClassCounts | None:
    if value is None:
        return None
    return PerClassCounts(*(_integers(value[name]) for name in ("images", "right", "predicted")))


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_CLASSES:
        raise ProtocolError(explain("per_class", type(value).__name__, "must be lists of numbers", "check the sender"))
    return tuple(map(_integer, value))


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _class_names(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) > MAX_CLASSES:
        raise ProtocolError(explain("class_names", type(value).__name__, "must be a list of names", "check the sender"))
    return tuple(map(_text, value))


# how each scalar field is read from JSON; fields of arrays are checked by the messages themselves
_READERS: dict[str, Callable[[Any], Any]] = {
    "version": _text,
    "query_id": _text,
    "run": _text,
    "principal": _text,
    "silo": _name,
    "code": RefusalCode,
    "form": AnswerForm,
    "forms": lambda forms: tuple(AnswerForm(form) for form in forms),
    "classes": _whole,
    "image_shape": _image_shape,
    "images_per_query": _whole,
    "answers_total": _whole,
    "answers_left": _whole,
    "noise_sigma": _number,
    "payload": _text,
    "recipes": _flag,
    "class_names": _class_names,
    "none_class": _flag,
    "share_answers": _flag,
    "teacher": lambda version: None if version is None else _name(version),
    "evaluation": _offer,
    "architecture": _text,
    "width": _whole,
    "outputs": _places,
    "right": _integer,
    "sigma": _number,
    "held_out": _whole_or_none,
    "evaluations_left": _whole,
    "per_class": _per_class,
    "claim": _claim,
    "class_report": _class_report,
}
