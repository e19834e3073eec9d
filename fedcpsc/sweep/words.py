# SPDX-License-Identifier: Apache-2.0
"""A sweep's figures and values as words: the same on terminal, picture, page and in the table."""

from __future__ import annotations

import json

from fedcpsc.plain_yaml import NotPlain, load_plain
from fedcpsc.runs.seeds import FigureOfSeeds

__all__ = ["as_override", "points", "share", "shortened", "shown_value", "spread"]


def shown_value(value: object) -> str:
    """A configuration's value, or a figure: text as it is, all else as JSON; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_override(key: str, value: object) -> str:
    """KEY=VALUE as `--set` takes it, without quotes where text needs none."""
    plain = isinstance(value, str) and value != "" and _reads_back(value)
    return f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}"


def _reads_back(text: str) -> bool:
    try:
        return bool(load_plain(text) == text)
    except NotPlain:
        return False


def share(value: float | None) -> str:
    """0.9341 -> "93.4"; None -> "-". The unit, %, stands at the column."""
    return "-" if value is None else f"{100 * value:.1f}"


def spread(figure: FigureOfSeeds) -> str:
    """Mean and deviation in per cent, "93.4 ± 1.8"; the mean alone of one seed, "-" where it is not known."""
    if figure["mean"] is None:
        return "-"
    return share(figure["mean"]) + ("" if figure["std"] is None else f" ± {share(figure['std'])}")


def points(figure: FigureOfSeeds) -> str:
    """A difference in percentage points, with its sign: "+1.2 ± 0.4"; "-" where it is not known."""
    if figure["mean"] is None:
        return "-"
    return f"{100 * figure['mean']:+.1f}" + ("" if figure["std"] is None else f" ± {share(figure['std'])}")


def shortened(name: str, length: int) -> str:
    """A name, cut in its middle where it is longer: what tells names apart stands at either end.

    Args:
        name: the name.
        length: number of characters at most, >= 5.
    """
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"
