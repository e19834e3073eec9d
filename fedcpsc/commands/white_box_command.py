# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc white-box` does: load the plan, run it with a moving line, print what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedcpsc.commands.literal import literal
from fedcpsc.runs.claim import Existing, claim
from fedcpsc.runs.result import WhiteBoxResult, read_white_box_result
from fedcpsc.typed_yaml import load_as

__all__ = ["WhiteBoxRequest", "white_box_once", "white_box_table"]

# torch, and whatever imports it, is imported where it is needed: `fedcpsc --help` must not wait for it


@dataclass(frozen=True)
class WhiteBoxRequest:
    """What was asked for on the command line.

    Attributes:
        path: YAML file of the run.
        overrides: `a.b=c` items, the last of equal keys wins.
        existing: choice of what to do where the run's folder holds a run.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    existing: Existing = Existing.REFUSE


def white_box_once(request: WhiteBoxRequest, console: Console) -> WhiteBoxResult:
    """Runs it and returns its result; a finished run that is to be resumed is only shown.

    Raises:
        ConfigError: the configuration is wrong.
        FedcpscError: the run failed; it goes on from its checkpoint with RESUME.
    """
    from fedcpsc.white_box.plan import WhiteBoxConfig  # noqa: PLC0415

    config = load_as(WhiteBoxConfig, request.path, list(request.overrides))
    run_dir = Path(config.output.root).absolute() / config.output.name
    resume = claim(run_dir, request.existing)
    result = read_white_box_result(run_dir) if resume else None
    if result is not None:
        from fedcpsc.runs.student import check_student  # noqa: PLC0415

        check_student(run_dir)
    else:
        from fedcpsc.white_box.run import run_white_box  # noqa: PLC0415

        with _moving(console, config.output.name) as (on_line, tell):
            result = run_white_box(config, run_dir, resume=resume, on_line=on_line, tell=tell)
    console.print(white_box_table(result))
    console.print(f"left in {run_dir}", markup=False, highlight=False, soft_wrap=True)
    return result


def white_box_table(result: WhiteBoxResult) -> Table:
    """Teacher and student.

    Args:
        result: result of the run.
    """
    table = Table(title=f"{result['name']} (white box, not private)", title_justify="left", caption_justify="left")
    seconds = result["seconds"]
    images = f"{result['teacher_images']:,} images through the teacher"
    table.caption = f"{images}; {seconds['distillation']:.0f} s on {result['device']}"
    table.caption += "; not judged by its answers, because one teacher has none to be compared with"
    if result["chosen_on_held_out"]:
        table.caption += "; epoch chosen on the held-out images, as the reference does: no measure of accuracy"
    for column in ("", "architecture", "parameters", f"accuracy ({result['evaluated_on']})"):
        table.add_column(column, justify="left" if column in {"", "architecture"} else "right")
    for who, part in (("teacher", result["teacher"]), ("student", result["student"])):
        shown = "-" if part["accuracy"] is None else f"{part['accuracy']:.1%}"
        table.add_row(who, literal(part["architecture"]), f"{part['parameters']:,}", shown)
    return table


@contextmanager
def _moving(console: Console, name: str) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[str], None]]]:
    """A progress bar on a terminal, else a line an evaluated epoch."""
    if not console.is_terminal:

        def on_line(line: dict[str, Any]) -> None:
            if "student_accuracy" in line:
                console.print(literal(f"{name}: {_state(line)}"), highlight=False, soft_wrap=True)

        yield on_line, lambda text: console.print(literal(f"{name}: {text}"), highlight=False, soft_wrap=True)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield (
            lambda line: bar.update(
                task, completed=line["epoch"] / line["epochs"], description=f"{name}: {_state(line)}"
            ),
            lambda text: bar.update(task, description=f"{name}: {text}"),
        )


def _state(line: dict[str, Any]) -> str:
    parts = [f"epoch {line['epoch']}/{line['epochs']}", f"KL {line['student']['kd']:.3f}"]
    if "student_accuracy" in line:
        parts.append(f"student {line['student_accuracy']:.1%}")
    return ", ".join(parts)
