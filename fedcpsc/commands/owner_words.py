# SPDX-License-Identifier: Apache-2.0
"""What the owner's commands share: their common arguments, and how results and errors are shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedcpsc.errors import ConfigError, FedcpscError

__all__ = ["Json", "SiloDir", "explain_errors", "say"]

SiloDir = Annotated[Path, typer.Argument(help="The silo's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Plain JSON instead of words.")]


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Errors as words for people, and an exit code: 2 where the command line is wrong, 1 otherwise."""
    try:
        yield
    except FedcpscError as error:
        typer.echo(f"{type(error).__name__.removesuffix('Error').lower()} error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error


def say(facts: Mapping[str, object], as_json: bool) -> None:
    """Prints facts, one a line, or all of them as one line of JSON.

    Args:
        facts: plain values by name; dicts and lists of them are shown in one line.
        as_json: whether to print JSON instead of words.
    """
    if as_json:
        typer.echo(json.dumps(dict(facts)))
        return
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {part}" for key, part in value.items())
        elif isinstance(value, list):
            shown = "; ".join(map(str, value)) or "none"
        typer.echo(f"{name}: {shown}")
