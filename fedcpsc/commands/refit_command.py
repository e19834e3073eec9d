# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc refit` does: another student of what a run has banked, its table and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedcpsc.commands.literal import literal
from fedcpsc.commands.run_command import show_result
from fedcpsc.commands.run_view import RunView
from fedcpsc.runs.claim import Existing
from fedcpsc.runs.result import RunResult

__all__ = ["RefitRequest", "refit_once"]


@dataclass(frozen=True)
class RefitRequest:
    """What was asked for on the command line.

    Attributes:
        source: folder of the run whose answers are fitted to.
        overrides: `a.b=c` items, the last of equal keys wins.
        name: name of the new run's folder; None for `<run's name>-refit`.
        existing: choice of what to do where that folder holds a run.
    """

    source: Path
    overrides: tuple[str, ...] = ()
    name: str | None = None
    existing: Existing = Existing.REFUSE


def refit_once(request: RefitRequest, console: Console) -> RunResult:
    """One refit; returns its result.

    Raises:
        FedcpscError: it failed, or its folder is taken.
    """
    from fedcpsc.simulated.refitting import refit_config, refit_run  # noqa: PLC0415 - brings torch

    name = refit_config(request.source, request.overrides, request.name).output.name
    with RunView(console, name, waits_for=f"reading what {request.source.name} has banked") as view:
        run_dir, result = refit_run(
            request.source,
            request.overrides,
            name=request.name,
            existing=request.existing,
            progress=view.line,
            tell=lambda line: console.print(literal(line), highlight=False, soft_wrap=True),
        )
    show_result(result, run_dir, console)
    return result
