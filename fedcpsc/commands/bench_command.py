# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc bench` does: measure with a moving line, print the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedcpsc.commands.literal import literal

if TYPE_CHECKING:
    from fedcpsc.bench.results import BenchResult, Curve
    from fedcpsc.bench.sides import BenchPlan
    from fedcpsc.bench.throughput import Tell

__all__ = ["bench_once", "bench_table", "curve_table", "ratio_table"]

# torch, and whatever imports it, is imported where it is needed: `fedcpsc --help` must not wait for it


def bench_once(plan: BenchPlan, out: Path, console: Console) -> BenchResult:
    """Runs it and returns bench.json.

    Raises:
        ConfigError: the command line, a configuration or a revision is wrong.
        FedcpscError: a side cannot be measured.
    """
    from fedcpsc.bench.benchmark import run_bench  # noqa: PLC0415

    with _moving(console) as tell:
        bench = run_bench(plan, out, tell)
    console.print(bench_table(bench))
    if len(bench["sides"]) == 2:
        console.print(ratio_table(bench))
    if bench["curve"]:
        console.print(curve_table(bench["curve"]))
    for key, (this, other) in bench["differs"].items():
        console.print(f"{key}: {this} | {other}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"left in {out}", markup=False, highlight=False, soft_wrap=True)
    return bench


def bench_table(bench: BenchResult) -> Table:
    """Each part's time, rate and memory on each side, and its seconds over those of the bare network passes.

    Args:
        bench: content of bench.json.
    """
    clock = bench["clock"]
    table = Table(title="speed and memory", title_justify="left", caption_justify="left")
    sides = (
        f"{name}: {side['label']}, commit {side['commit'] or 'unknown'}, {side['device']}, {side['threads']} threads"
        for name, side in bench["sides"].items()
    )
    table.caption = literal("\n".join(sides))
    for column in ("", "side", "CPU ms" if clock == "cpu_s" else "ms", "least-most", "images/s", "peak MiB", "/ bare"):
        table.add_column(column, justify="left" if column in {"", "side"} else "right")
    for row in bench["throughput"]:
        for place, (name, figures) in enumerate(row["sides"].items()):
            times = figures[clock]
            median, least, most = 1000 * times["median"], 1000 * times["least"], 1000 * times["most"]
            gpu = figures["gpu_peak_MiB"]
            memory = f"{figures['peak_MiB']:,.0f}" + ("" if gpu is None else f", GPU {gpu:,.0f}")
            rate = f"{figures['images_per_second']:,.0f}"
            bare = "-" if (over := figures["over_bare"]) is None else f"{over[clock]['median']:.2f}"
            part = "" if place else row["stage"]
            table.add_row(part, literal(name), f"{median:.1f}", f"{least:.1f}-{most:.1f}", rate, memory, bare)
    return table


def ratio_table(bench: BenchResult) -> Table:
    """How many times the other side's seconds are this one's: above 1 this side is faster.

    Args:
        bench: content of bench.json, of two sides.
    """
    table = Table(title="seconds an image, other / this", title_justify="left")
    for column in ("", "CPU", "least-most", "wall", "least-most", "same outcome"):
        table.add_column(column, justify="left" if column in {"", "same outcome"} else "right")
    for row in bench["throughput"]:
        cells = [row["stage"]]
        for figures in (row["ratio"]["cpu_s"], row["ratio"]["wall_s"]):
            cells += [f"{figures['median']:.2f}", f"{figures['least']:.2f}-{figures['most']:.2f}"]
        table.add_row(*cells, "yes" if row["same_outcome"] else "no")
    return table


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """The student's accuracy at the end of each side's runs.

    Args:
        curves: curves of bench.json, by the side's name.
    """
    table = Table(title="accuracy per answer", title_justify="left")
    for column in ("", "answers", "images", "mean", "std", "each"):
        table.add_column(column, justify="right" if column not in {"", "images"} else "left")
    for name, curve in curves.items():
        final = curve["final"]
        std = "-" if final["std"] is None else f"{final['std']:.1%}"
        each = " ".join(f"{value:.1%}" for value in final["each"])
        table.add_row(literal(name), f"{final['answers']:,}", curve["split"], f"{final['mean']:.1%}", std, each)
    return table


@contextmanager
def _moving(console: Console) -> Iterator[Tell]:
    """A progress bar on a terminal, else a line for each new thing done."""
    if not console.is_terminal:
        last = ""

        def tell(share: float, text: str) -> None:
            nonlocal last
            if text != last:
                console.print(f"bench: {share:.0%} {text}", markup=False, highlight=False, soft_wrap=True)
            last = text

        yield tell
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("bench", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=f"bench: {text}")
