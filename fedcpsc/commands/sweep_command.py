# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc sweep` does: read the plan, run what is missing with all runs in sight, print the table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedcpsc.commands.literal import literal
from fedcpsc.sweep.expand import AS_CONFIGURED, Sweep, expand
from fedcpsc.sweep.layout import PAGE_FILE
from fedcpsc.sweep.plan import load_plan

if TYPE_CHECKING:
    from fedcpsc.sweep.run import SweepResult

__all__ = ["SweepRequest", "show_plan", "sweep_once"]

# torch, and whatever imports it, is imported where it is needed: `fedcpsc --help` must not wait for it


@dataclass(frozen=True)
class SweepRequest:
    """What was asked for on the command line.

    Attributes:
        path: YAML file of the plan.
        overrides: overrides KEY=VALUE of every run.
        out: folder of the sweep; None takes `<root>/<name>` of the plan.
        jobs: number of processes at a time; None for as many as suit the machine.
        most_runs: largest number of runs; None is the usual one.
        overwrite: whether to begin anew where a sweep lies there.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    jobs: int | None = None
    most_runs: int | None = None
    overwrite: bool = False

    def load(self) -> Sweep:
        """The plan with all that follows from it.

        Raises:
            ConfigError: as `load_plan` and `expand`.
        """
        plan = load_plan(self.path)
        return expand(plan, self.out or Path(plan.root) / str(plan.name), self.overrides, self.most_runs)


def sweep_once(request: SweepRequest, console: Console) -> SweepResult:
    """Does all runs of a plan that are not done, and shows the table; runs that failed are named.

    Raises:
        FedcpscError: the plan is wrong, or the folder holds something else.
    """
    from fedcpsc.commands.sweep_view import SweepView, summary_table  # noqa: PLC0415
    from fedcpsc.sweep.run import run_sweep  # noqa: PLC0415

    def show(line: str) -> None:
        console.print(literal(line), highlight=False, soft_wrap=True)

    sweep = request.load()
    with SweepView(console) as view:
        result = run_sweep(sweep, jobs=request.jobs, overwrite=request.overwrite, watch=view.watch, tell=show)
    console.print(summary_table(sweep.name, len(sweep.plan.seeds), result.summaries, console.width))
    for note in result.attempt.notes:
        show(note)
    for name, failure in result.failures.items():
        console.print("[bold red]failed[/]:", literal(f"{name}: {failure}"), highlight=False, soft_wrap=True)
    if result.failures:
        show("the same command tries again what failed")
    show(f"left in {sweep.folder}; look at {sweep.folder / PAGE_FILE}")
    return result


def show_plan(request: SweepRequest, console: Console) -> None:
    """Shows the settings that a plan comes to, and starts nothing.

    Raises:
        ConfigError: the plan is wrong.
    """
    sweep = request.load()
    for setting in sweep.settings:
        changes = " ".join(f"--set {shlex.quote(item)}" for item in setting.overrides)
        console.print(literal(f"{setting.name}: {changes or AS_CONFIGURED}"), highlight=False, soft_wrap=True)
    seeds = ", ".join(map(str, sweep.plan.seeds))
    words = f"with each of the seeds {seeds}: {len(sweep.everything)} runs, in {sweep.folder}"
    console.print(literal(words), highlight=False, soft_wrap=True)
