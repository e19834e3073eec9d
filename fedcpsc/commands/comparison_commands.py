# SPDX-License-Identifier: Apache-2.0
"""The commands that make or compare several students: `sweep`, `refit`, `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcpsc.commands.exit_codes import exit_codes
from fedcpsc.commands.override_option import Overrides, each_set_once
from fedcpsc.commands.terminal import console

__all__ = ["bench", "refit", "sweep"]


def sweep(
    plan: Annotated[Path, typer.Argument(help="YAML file of the plan, see configs/sweep_*.", show_default=False)],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=each_set_once,
            help="Override a value of every run that the plan does not vary; may be given again for another key.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder, instead of sweeps/NAME.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes at a time; by default as many as cores and memory carry."),
    ] = None,
    max_runs: Annotated[int | None, typer.Option(min=1, help="Allow so many runs, instead of 100.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew; an earlier sweep is moved to <name>.previous.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the plan, list its runs, and start none.")] = False,
) -> None:
    """Run several settings with several seeds, over silos that are made once, and leave one table of all runs.

    Given again, the command goes on where it was: what is done is kept, and what failed is tried again. Exit 1 where a
    run failed; the others go on all the same.

    Example: [bold]fedcpsc sweep configs/sweep_rules.yaml[/]
    """
    with exit_codes("stopped; what is done is kept, go on with the same command"):
        from fedcpsc.commands.sweep_command import SweepRequest, show_plan, sweep_once

        request = SweepRequest(plan, tuple(overrides or ()), out, jobs, max_runs, overwrite)
        if dry_run:
            show_plan(request, console())
        elif sweep_once(request, console()).failures:
            raise typer.Exit(1)


def refit(
    run: Annotated[Path, typer.Argument(help="A run's folder, for example runs/digits.", show_default=False)],
    *,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new run's folder, beside RUN; without it <name of RUN>-refit.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier refit, which is moved to <name>.previous.")
    ] = False,
) -> None:
    """Fit another student to the answers that RUN has banked; no silo is asked anything, and RUN is only read.

    RUN need not have finished. What concerns the fit may be changed: student, evaluation, output, runtime, and of
    aggregation rule, robust, smoothing and exclude.

    Example: [bold]fedcpsc refit runs/digits --set student.architecture=resnet18_narrow --name digits-resnet[/]
    """
    with exit_codes():
        from fedcpsc.commands.refit_command import RefitRequest, refit_once
        from fedcpsc.runs.claim import Existing

        refit_once(
            RefitRequest(run, tuple(overrides or ()), name, Existing.OVERWRITE if overwrite else Existing.REFUSE),
            console(),
        )


def bench(
    config: Annotated[Path, typer.Argument(help="YAML file of the run, see configs/.", show_default=False)],
    *,
    overrides: Overrides = None,
    against: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Configuration of the other side, run by the same code.")
    ] = None,
    against_commit: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Revision of the other side: the same configuration, run by its code."),
    ] = None,
    overrides_against: Annotated[
        list[str] | None,
        typer.Option(
            "--set-against",
            metavar="KEY=VALUE",
            callback=each_set_once,
            help="Override a value of the other side alone, after --set.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps in one timed call.")] = 20,
    repeats: Annotated[int, typer.Option(help="Timed calls of each part and side.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Measure this part alone, e.g. student or round; may be given again."),
    ] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Also run both: accuracy against answers.")] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each side for the curve, from the configured seed on.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("runs/bench"),
) -> None:
    """Measure a run's parts: images a second, seconds a step, peak memory; two sides by turns, where another is named.

    Example: [bold]fedcpsc bench configs/digits.yaml --set-against student.width=16 --curve --seeds 3[/]

    Example: [bold]fedcpsc bench configs/digits.yaml --against-commit HEAD~1[/]
    """
    with exit_codes():
        from fedcpsc.bench.sides import BenchPlan
        from fedcpsc.commands.bench_command import bench_once

        plan = BenchPlan(
            config,
            tuple(overrides or ()),
            against=against,
            against_commit=against_commit,
            overrides_against=tuple(overrides_against or ()),
            steps=steps,
            repeats=repeats,
            curve=curve,
            seeds=seeds,
            only=tuple(only or ()),
        )
        bench_once(plan, out, console())
