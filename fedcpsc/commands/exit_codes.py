# SPDX-License-Identifier: Apache-2.0
"""How a command ends: this package's errors as words for people, and an exit code (the table is in `fedcpsc.cli`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from fedcpsc.errors import ConfigError, FedcpscError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["STOPPED", "code_of", "exit_codes", "said"]

STOPPED = 130
_KEPT = "stopped; what was paid for is kept, go on with --resume"


def said(error: FedcpscError) -> str:
    """What a person is shown: the kind of error, then its own words."""
    return f"{_kind(error)} error: {error}"


def code_of(error: FedcpscError) -> int:
    """The exit code of an error: 2 where the command line or a configuration is wrong, else 1."""
    return 2 if isinstance(error, ConfigError) else 1


def _kind(error: FedcpscError) -> str:
    return type(error).__name__.removesuffix("Error").lower()


@contextmanager
def exit_codes(interrupted: str = _KEPT) -> Iterator[None]:
    """Turns this package's errors into a message on stderr and an exit code.

    Args:
        interrupted: message shown where the user stops the command.
    """
    try:
        yield
    except FedcpscError as error:
        from fedcpsc.commands.literal import literal  # noqa: PLC0415 - brings rich

        console = _stderr()
        console.print(f"[bold red]{_kind(error)} error[/]: ", end="")
        console.print(literal(str(error)), highlight=False, soft_wrap=True)
        raise typer.Exit(code_of(error)) from error
    except KeyboardInterrupt:
        _stderr().print(interrupted)
        raise typer.Exit(STOPPED) from None


def _stderr() -> Console:
    from rich.console import Console  # noqa: PLC0415 - commands that print plain lines do without

    return Console(stderr=True, emoji=False)
