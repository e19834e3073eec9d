"""A deployment on the terminal: a table that lives as long as it does; without a terminal, a line for each change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.table import Table

from fedcpsc.launch.deployment.crew import Crew, Standing

__all__ = ["stand_by", "standing_of", "table"]

_LOOK_S = 1.0
_COLOURS = {"up": "green", "not answering": "yellow"}


def stand_by(crew: Crew, console: Console) -> NoReturn:
    """Shows how the crew stands, until interrupted.

    Raises:
        KeyboardInterrupt: always, at last.
    """
    if console.is_terminal:
        with Live(table(crew.standings()), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(_LOOK_S)
                live.update(table(crew.standings()), refresh=True)
    told: dict[str, str] = {}
    while True:
        for standing in crew.standings():
            name, state = standing.member.name, standing_of(standing)
            if told.get(name) != state:
                told[name] = state
                line = f"{name}: {state}, {standing.member.where}, {standing.member.log}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        time.sleep(_LOOK_S)


def standing_of(standing: Standing) -> str:
    """In a word or two."""
    if standing.exit_code is not None:
        return f"ended with exit code {standing.exit_code}"
    return "up" if standing.ready else "not answering"


def table(standings: Sequence[Standing]) -> Table:
    """One row for each process."""
    made = Table(title="deployment", title_justify="left")
    for column in ("", "state", "process", "where", "log"):
        made.add_column(column, justify="right" if column == "process" else "left", overflow="fold")
    for standing in standings:
        state = standing_of(standing)
        shown = f"[{_COLOURS.get(state, 'bold red')}]{state}[/]"
        made.add_row(standing.member.name, shown, str(standing.pid), standing.member.where, str(standing.member.log))
    return made
