# SPDX-License-Identifier: Apache-2.0
"""In which values two configurations of a run differ."""

from __future__ import annotations

from collections.abc import Mapping

from fedcpsc.config import RunConfig

__all__ = ["changed_values", "in_words"]

_LEFT_TO_THE_MACHINE = {"student.precision", "synthesis.precision"}
"""Keys whose null a run replaces when it begins."""


def changed_values(before: RunConfig, now: RunConfig) -> dict[str, tuple[object, object]]:
    """The values that differ, before and now, by their key, as `queries.rounds` or `seed`.

    Args:
        before: one configuration.
        now: the other one; a number format that it leaves to the machine is no change, a run keeps what it began with.
    """
    first, second = before.model_dump(mode="json"), now.model_dump(mode="json")
    found: dict[str, tuple[object, object]] = {}
    for section, values in first.items():
        if not isinstance(values, dict):
            if values != second[section]:
                found[section] = values, second[section]
            continue
        for key, value in values.items():
            name, other = f"{section}.{key}", second[section][key]
            if value != other and not (other is None and name in _LEFT_TO_THE_MACHINE):
                found[name] = value, other
    return found


def in_words(changed: Mapping[str, tuple[object, object]]) -> str:
    """The changes as `queries.rounds: 20 -> 10; ...`."""
    return "; ".join(f"{key}: {before} -> {now}" for key, (before, now) in changed.items())
