"""How a command ends: this package's errors as words for people, and an exit code (the table is in `fedcpsc.cli`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from fedcpsc.errors import ConfigError, FedcpscError

__all__ = ["STOPPED", "exit_codes"]

STOPPED = 130
_KEPT = "stopped; what was paid for is kept, go on with --resume"


@contextmanager
def exit_codes(interrupted: str = _KEPT) -> Iterator[None]:
    """Turns this package's errors into a message on stderr and an exit code.

    Args:
        interrupted: what is said where the user stops the command.
    """
    console = Console(stderr=True)
    try:
        yield
    except FedcpscError as error:
        kind = type(error).__name__.removesuffix("Error").lower()
        console.print(f"[bold red]{kind} error[/]: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt:
        console.print(interrupted)
        raise typer.Exit(STOPPED) from None
