# SPDX-License-Identifier: Apache-2.0
"""A deployment on the terminal: a table that lives as long as it does; without a terminal, a line for each change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fedcpsc.commands.literal import literal
from fedcpsc.launch.deployment.supervisor import ProcessStatus, Supervisor

__all__ = ["describe_status", "show_until_interrupted", "table"]

_LOOK_S = 1.0
_COLOURS = {"up": "green", "not answering": "yellow"}


def show_until_interrupted(supervisor: Supervisor, console: Console) -> NoReturn:
    """Shows the state of every process, until interrupted.

    Raises:
        KeyboardInterrupt: always, at last.
    """
    if console.is_terminal:
        with Live(table(supervisor.statuses()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_LOOK_S)
                live.update(table(supervisor.statuses()), refresh=True)
    shown: dict[str, str] = {}
    while True:
        for status in supervisor.statuses():
            name, state = status.member.name, describe_status(status)
            if shown.get(name) != state:
                shown[name] = state
                line = f"{name}: {state}, {status.member.where}, {status.member.log}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        time.sleep(_LOOK_S)


def describe_status(status: ProcessStatus) -> str:
    """The state in a word or two."""
    if status.exit_code is not None:
        return f"ended with exit code {status.exit_code}"
    return "up" if status.ready else "not answering"


def table(statuses: Sequence[ProcessStatus]) -> Table:
    """One row for each process."""
    made = Table(title="deployment", title_justify="left")
    for column in ("", "state", "process", "where", "log"):
        made.add_column(column, justify="right" if column == "process" else "left", overflow="fold")
    for status in statuses:
        state = describe_status(status)
        shown = f"[{_COLOURS.get(state, 'bold red')}]{state}[/]"
        where, log = literal(status.member.where), literal(str(status.member.log))
        made.add_row(status.member.name, shown, str(status.pid), where, log)
    return made
