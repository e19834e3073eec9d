# SPDX-License-Identifier: Apache-2.0
"""A sweep on the terminal: all runs under way while it goes on, one table when it is done; 80 columns are enough."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
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

_NAME, _BAR, _WORDS = 26, 10, 40  # columns of a row of 80
_LEAST_NAME = 12
_WIDE = 100


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
            ProgressBar(total=1.0, completed=running.line["share_done"] if running.line else 0.0, width=_BAR),
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


def summary_table(name: str, seeds: int, summaries: Sequence[Summary], width: int = 80) -> Table:
    """Each setting's figures over its seeds; long names take two lines.

    Args:
        name: name of the sweep.
        seeds: number of seeds.
        summaries: one summary for each setting, in the plan's order.
        width: columns of the terminal; from 100 on there is room for the best teacher too.
    """
    of_seeds = f"{seeds} seed{'s' * (seeds > 1)}"
    table = Table(title=literal(f"{name}: accuracy, %, {of_seeds}"), title_justify="left", caption_justify="left")
    table.box = SIMPLE_HEAD
    columns = {"student": [spread(summary.student) for summary in summaries]}
    if any(summary.missing for summary in summaries):
        runs = [f"{summary.count} of {summary.count + summary.missing}" for summary in summaries]
        columns = {"runs": runs, **columns}
    if len(summaries) > 1:
        columns["difference"] = [points(summary.difference) for summary in summaries]
        table.caption = literal(f"difference: to {shortened(summaries[0].setting.name, _NAME)}, seed by seed")
    columns["ensemble"] = [spread(summary.ensemble) for summary in summaries]
    if width >= _WIDE:
        columns["best teacher"] = [spread(summary.best_teacher) for summary in summaries]
    taken = sum(max(map(len, [column, *cells])) + 3 for column, cells in columns.items())
    table.add_column("setting", max_width=max(_LEAST_NAME, width - taken - 4), overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, style="bold" if column == "student" else "")
    for place, summary in enumerate(summaries):
        table.add_row(literal(summary.setting.name), *(cells[place] for cells in columns.values()))
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
