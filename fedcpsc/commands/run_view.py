# SPDX-License-Identifier: Apache-2.0
"""A run on the terminal: one moving line while it goes, one table when it is done."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fedcpsc.commands.literal import literal
from fedcpsc.commands.long_name import LongName
from fedcpsc.commands.seeds_summary import SeedsSummary
from fedcpsc.printable import printable
from fedcpsc.runs.evaluation_words import without_test_images
from fedcpsc.runs.metrics import MetricsLine, SiloLine, describe_line, describe_phase, describe_stop, duration
from fedcpsc.runs.result import RunResult, SiloResult
from fedcpsc.runs.suspicion import SuspicionWatch, describe_suspicion, suspicions_of

__all__ = ["RunView", "result_table", "seeds_table"]

_MOST_SILOS = 20  # that fit a screen
_WIDE = 120  # columns from which on a line holds all figures of a round
_SHORT_NAME = 18  # characters of a run's name on a narrower one
_ALARM = "the silos call nearly everything one class: the query images have gone astray"


class RunView:
    """Context manager; `line` takes each line of metrics.jsonl, `event` what else an operator should know.

    Without a terminal it prints one line a round.

    Args:
        console: console to write to.
        name: name of the run.
        waits_for: what is done before the first line, in words.
    """

    def __init__(self, console: Console, name: str, waits_for: str = "waiting for the silos") -> None:
        self._console = console
        self._name = name
        self._waits_for = waits_for
        self._alarmed = False
        self._suspicions = SuspicionWatch()
        self._events: set[str] = set()
        self._of_line: set[str] = set()  # said of suspicions by the newest line
        self._stops: set[str] = set()  # said of silos that are no longer asked
        self._narrow = console.width < _WIDE
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16 if self._narrow else 24),
            TextColumn("{task.fields[state]}"),
        )
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        shown = printable(name, _SHORT_NAME if self._narrow else None)
        self._task = self._bar.add_task(shown, total=1.0, state=waits_for) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        else:
            self._console.print(literal(f"{self._name}: {self._waits_for}"), highlight=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def event(self, event: str) -> None:
        """Prints a line about something an operator should know, unless a line of metrics.jsonl told it already."""
        if event not in self._of_line | self._stops:
            self._print(event)
        self._events.add(event)

    def _print(self, event: str) -> None:
        self._console.print(literal(f"{self._name}: {event}"), highlight=False, soft_wrap=True)

    def line(self, line: MetricsLine) -> None:
        """Shows how far the run is."""
        if line["alarm"] and not self._alarmed:
            self._console.print(f"[bold red]alarm[/]: {_ALARM} (class entropy {line['entropy']:.2f})")
        self._alarmed = bool(line["alarm"])
        if "silos" in line:
            self._tell_of(line["silos"])
        if self._bar is not None and self._task is not None:
            state = _short_state(line) if self._narrow else describe_line(line)
            self._bar.update(self._task, completed=line["share_done"], state=state)
        elif line["phase"] == "round" or "student_accuracy" in line:
            self._console.print(literal(f"{self._name}: {describe_line(line)}"), highlight=False, soft_wrap=True)

    def _tell_of(self, silos: Mapping[str, SiloLine]) -> None:
        """Prints what is new about silos: suspicions that arise or go, and who is no longer asked."""
        arisen, gone = self._suspicions.changes(suspicions_of(silos))
        for change in arisen:
            self._console.print("[bold red]alarm[/]:", literal(change), highlight=False, soft_wrap=True)
        for change in gone:
            self._print(change)
        self._of_line = {*arisen, *gone}
        stops = {describe_stop(name, why) for name, silo in silos.items() if (why := silo.get("stopped"))}
        for stop in sorted(stops - self._events - self._stops):
            self._print(stop)
        self._stops |= stops


def _short_state(line: MetricsLine) -> str:
    """What a line of 80 columns has room for beside a name and a bar."""
    accuracy = line.get("student_accuracy")
    student = [] if accuracy is None else [f"student {accuracy:.1%}"]
    return ", ".join([describe_phase(line), *student, f"{duration(line['seconds_left'])} left"])


def result_table(result: RunResult) -> Table:
    """Each silo's teacher, the ensemble and the student; below, what the run cost, who is suspected, who was kept out.

    Args:
        result: result of the run.
    """
    seconds = result["seconds"]
    table = Table(title=literal(result["name"]), caption_justify="left", title_justify="left")
    caption = (
        f"{result['answers_per_silo']:,} answers per silo, {_bytes(result['bytes_sent'])} sent, "
        f"{_bytes(result['bytes_received'])} received; {duration(seconds['total'])}, "
        f"of which {duration(seconds['waiting'])} waiting for answers"
    )
    if result.get("refit"):
        caption = f"{result['answers_per_silo']:,} answers per silo, none of them asked for here; "
        caption += f"{duration(seconds['total'])}"
    later = seconds.get("waiting_share_after_first_round")
    if later is not None and not result.get("refit"):
        caption += f" ({later:.1%} of the time after the first round)"
    table.caption = literal("\n".join([caption, *without_test_images(result), *_warnings(result)]))
    units = {silo["unit"] for silo in result["silos"] if _promised(silo)}
    unit = f"\nper {units.pop()}" if len(units) == 1 else ""
    for column in ("", "images", "answers", "refusals", f"epsilon{unit}", "accuracy"):
        table.add_column(literal(column), justify="left" if not column else "right", no_wrap=bool(column))
    shown, rest = _worth_showing(result["silos"])
    for silo in shown:
        epsilon = "no dp"
        if _promised(silo):
            epsilon = f"{silo['epsilon']:.2f}" + ("" if unit else f"\nper {silo['unit']}")
        size = "-" if silo["train_size"] is None else f"{silo['train_size']:,}"
        row = (size, f"{silo['answers']:,}", f"{sum(silo['refusals'].values()):,}", epsilon)
        table.add_row(LongName(f"teacher {silo['id']}"), *map(literal, row), _percent(silo["teacher_accuracy"]))
    if rest:
        known = [silo["teacher_accuracy"] for silo in rest if silo["teacher_accuracy"] is not None]
        middle = _percent(statistics.median(known) if known else None)
        table.add_row(f"{len(rest)} more in the report, median", "", "", "", "", middle)
    table.add_section()
    rule = LongName(f"ensemble ({result['ensemble']['rule']})")
    table.add_row(rule, "", "", "", "", _percent(result["ensemble"]["accuracy"]))
    table.add_row("student", "", "", "", "", f"[bold]{_percent(result['student']['accuracy'])}[/]")
    pooled = found["pooled"] if (found := result.get("federated_evaluation")) is not None else None
    if pooled is not None:
        table.add_row("student, by the silos", f"{pooled['images']:,}", "", "", "", _percent(pooled["accuracy"]))
    return table


def _warnings(result: RunResult) -> list[str]:
    """A line for each silo that is suspected, refused, was not let in, or paid elsewhere, as many as a screen holds."""
    found = _earlier_runs(result)
    found += [describe_suspicion(silo["id"], why) for silo in result["silos"] if (why := silo.get("suspicion"))]
    for silo in result["silos"]:
        if silo["refusals"]:
            codes = ", ".join(f"{count} {code}" for code, count in silo["refusals"].items())
            found.append(f"{silo['id']} refused: {codes}")
    if result.get("not_judged"):
        found.append(f"silos were not judged by their answers, because {result['not_judged']}")
    found += [f"not let in: {name}: {why}" for name, why in result.get("turned_away", {}).items()]
    more = len(found) - _MOST_SILOS
    return found if more <= 0 else [*found[:_MOST_SILOS], f"and {more} more in the report"]


def _promised(silo: SiloResult) -> bool:
    return silo["dp"] and silo["epsilon"] is not None


def _earlier_runs(result: RunResult) -> list[str]:
    """Where answers came from that this run did not ask for, and who of those that gave them was not asked."""
    earlier = result.get("earlier_runs")
    if not earlier:
        return []
    found = [f"answers of {' and '.join(one['run'] for one in earlier)} were there when it began"]
    if not result.get("refit"):
        here = ", ".join(f"{silo['id']} {silo.get('answers_here', 0):,}" for silo in result["silos"])
        found.append(f"answered, and charged for, in this run: {here}")
        found += [f"{silo['id']} was not asked: {silo['stopped']}" for silo in result["silos"] if _was_not_asked(silo)]
    return found


def _was_not_asked(silo: SiloResult) -> bool:
    return bool(silo.get("stopped")) and not silo.get("answers_here") and not silo.get("replies")


def _worth_showing(silos: list[SiloResult]) -> tuple[list[SiloResult], list[SiloResult]]:
    """Of many silos those that are suspected, those that refused most, then the least accurate; and the rest."""
    if len(silos) <= _MOST_SILOS:
        return silos, []
    ranked = sorted(
        silos,
        key=lambda silo: (
            not silo.get("suspicion"),
            -sum(silo["refusals"].values()),
            silo["teacher_accuracy"] or 0.0,
        ),
    )
    return ranked[:_MOST_SILOS], ranked[_MOST_SILOS:]


def seeds_table(summary: SeedsSummary) -> Table:
    """Mean and standard deviation over seeds.

    Args:
        summary: content of `<name>-seeds.json`.
    """
    count = len(summary["seeds"])
    table = Table(title=literal(f"{summary['name']}, {count} seeds"), title_justify="left")
    for column in ("", "mean", "std", "each"):
        table.add_column(column, justify="left" if not column else "right")
    named = {"student": summary["student"], "ensemble": summary["ensemble"], "best teacher": summary["best_teacher"]}
    for label, figures in named.items():
        each = " ".join(_percent(value) for value in figures["values"])
        table.add_row(label, _percent(figures["mean"]), _percent(figures["std"]), each)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
