# SPDX-License-Identifier: Apache-2.0
"""JSON as its standard has it, and each key once.

Python's own parser takes NaN and Infinity, keeps the last of two equal keys without a word, and ends in a
RecursionError where nests are deep.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["parse_json", "parse_mapping"]


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
