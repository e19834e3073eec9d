# SPDX-License-Identifier: Apache-2.0
"""A sweep on the terminal: all runs under way while it goes on, one table when it is done; 80 columns are enough."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedcpsc.commands.literal import literal
from fedcpsc.sweep.words import points, share, shortened, spread

if TYPE_CHECKING:
    from fedcpsc.sweep.schedule import Outcome, Progress, Running
    from fedcpsc.sweep.table import Summary
    from fedcpsc.sweep.tasks import Task

__all__ = ["SweepView", "summary_table"]

_NAME = 30  # characters of a name in a row of 80
_WORDS = 30


class SweepView:
    """Context manager; `watch` takes each look at the processes. Without a terminal it prints a line at each end.

    Args:
        console: console to write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def watch(self, progress: Progress) -> None:
        """Shows how far the processes are."""
        if progress.ended is not None:
            self._print_end(*progress.ended, done=len(progress.outcomes), total=progress.total)
        if progress.began is not None and self._live is None:
            self._console.print(literal(f"{progress.began.title}: begun"), highlight=False, soft_wrap=True)
        if self._live:
            self._live.update(_now(progress), refresh=True)

    def _print_end(self, task: Task, outcome: Outcome, done: int, total: int) -> None:
        if outcome.failure is None:
            words = literal(f"{task.title}: done in {_duration(outcome.seconds)} ({done}/{total})")
        else:
            words = Text.assemble((f"{task.title}: failed", "bold red"), literal(f": {outcome.failure}"))
        self._console.print(words, highlight=False, soft_wrap=True)


def _now(progress: Progress) -> Group:
    failed = sum(outcome.failure is not None for outcome in progress.outcomes.values())
    head = f"{len(progress.outcomes)} of {progress.total} processes ended, {_duration(progress.seconds)}"
    rows = Table.grid(padding=(0, 1))
    for running in progress.running:
        rows.add_row(
            literal(shortened(running.task.title, _NAME)),
            ProgressBar(total=1.0, completed=running.line["share_done"] if running.line else 0.0, width=12),
            literal(shortened(_state(running), _WORDS)),
        )
    return Group(Text(head + (f", {failed} failed" if failed else "")), rows)


def _state(running: Running) -> str:
    line = running.line
    if line is None:
        return running.words if running.task.run is None and running.words else _duration(running.seconds)
    where = f"round {line['round']}/{line['rounds']}" if line["phase"] == "round" else "final fit"
    accuracy = line.get("student_accuracy")
    measured = "" if accuracy is None else f", {share(accuracy)} %"
    return f"{where}{measured}, {_duration(line['seconds_left'])} left"


def summary_table(name: str, summaries: Sequence[Summary]) -> Table:
    """Each setting's figures over its seeds.

    Args:
        name: name of the sweep.
        summaries: one summary for each setting, in the plan's order.
    """
    several = len(summaries) > 1
    table = Table(title=literal(f"{name}: accuracy, %"), title_justify="left", caption_justify="left")
    table.add_column("setting", overflow="fold", ratio=1)
    for column in ("runs", "student", *(("difference",) if several else ()), "ensemble", "best teacher"):
        table.add_column(column, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            literal(summary.setting.name),
            f"{summary.count}" + (f" of {summary.count + summary.missing}" if summary.missing else ""),
            f"[bold]{spread(summary.student)}[/]",
            *((points(summary.difference),) if several else ()),
            spread(summary.ensemble),
            spread(summary.best_teacher),
        )
    if several:
        table.caption = literal(f"difference: to {shortened(summaries[0].setting.name, _NAME)}, seed by seed")
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
