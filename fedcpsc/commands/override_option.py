# SPDX-License-Identifier: Apache-2.0
"""The option `--set KEY=VALUE` of every command that reads a configuration."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["Overrides", "each_set_once"]


def each_set_once(items: list[str] | None) -> list[str] | None:
    """`items`, as typer's callback takes them.

    Raises:
        typer.BadParameter: a key is set to two values; which of them was meant is the user's to say.
    """
    values: dict[str, str] = {}
    for item in items or ():
        key, _, value = item.partition("=")
        if values.get(key := key.strip(), value) != value:
            raise typer.BadParameter(
                f"{key!r} is set twice ({values[key]!r} and {value!r}); keep the one that is meant"
            )
        values[key] = value
    return items


Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=each_set_once,
        help="Override a value of the file; may be given again for another key.",
    ),
]
