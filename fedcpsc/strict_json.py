# SPDX-License-Identifier: Apache-2.0
"""JSON as its standard has it, and each key once.

Python's own parser takes NaN and Infinity, keeps the last of two equal keys without a word, and ends in a
RecursionError where nests are deep.

What a run writes into its folder is written by `format_json`: no file of it ever holds a number that is not finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fedcpsc.errors import RunError, explain

__all__ = ["format_json", "parse_json", "parse_mapping"]


def format_json(value: object, path: Path, *, indent: int | None = None) -> str:
    """The value as JSON, without the line's end.

    Args:
        value: mappings, sequences, text, numbers, truths and None.
        path: path of the file that the text is for; the error names it.
        indent: number of spaces of each level; None: all on one line.

    Raises:
        RunError: a number is NaN or infinite; the message says where. Nothing has been written then.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError as error:
        place, number = next(_not_finite(value, ""), ("", None))
        if number is None:
            raise
        constraint = f"is not finite, and would stand in {path.name}"
        remedy = "fix what made it, then go on with --resume: what was paid for is kept"
        raise RunError(explain(place, number, constraint, remedy)) from error


def _not_finite(value: object, place: str) -> Iterator[tuple[str, float]]:
    """Places, such as `silos.2.epsilon`, and values of numbers that are not finite."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        yield from _not_finite(part, f"{place}.{key}" if place else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        yield place, value


def parse_json(text: bytes) -> Any:
    """What the text says.

    Args:
        text: UTF-8.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or holds a number that is not finite or a key twice.
    """
    try:
        return json.loads(
            text.decode("utf-8"), parse_constant=_refused, parse_float=_finite, object_pairs_hook=_each_once
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_mapping(text: bytes) -> dict[str, Any]:
    """The same, where it must be an object.

    Raises:
        ValueError: as `parse_json`, and for any other kind of value.
    """
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}, not a mapping")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value
