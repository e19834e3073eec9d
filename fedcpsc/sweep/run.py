# SPDX-License-Identifier: Apache-2.0
"""Does one sweep: checks it, makes silos, runs what is missing, and leaves table, picture and page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.errors import ConfigError, SiloError, explain
from fedcpsc.report.after_run import draw
from fedcpsc.runs.claim import worked_on_alone
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.sweep.expand import PlannedRun, Sweep
from fedcpsc.sweep.folder import begun_runs, check_ours, finished_runs, left_out, move_aside, take_up
from fedcpsc.sweep.layout import MADE_FOLDER
from fedcpsc.sweep.schedule import Watch, usual_jobs, work
from fedcpsc.sweep.table import Row, Summary, commits_of, rows_of, summarise
from fedcpsc.sweep.tasks import plan_tasks
from fedcpsc.sweep.write import Attempt, write_results

__all__ = ["SweepResult", "check_runs", "run_sweep"]


@dataclass(frozen=True)
class SweepResult:
    """A sweep after an attempt.

    Attributes:
        sweep: the sweep.
        rows: one row for each run, setting by setting.
        summaries: one summary for each setting, in the plan's order.
        attempt: facts of this attempt.
        failures: reasons why tasks failed at this attempt, by the task's name.
    """

    sweep: Sweep
    rows: list[Row]
    summaries: list[Summary]
    attempt: Attempt
    failures: dict[str, str]


def run_sweep(
    sweep: Sweep,
    *,
    jobs: int | None = None,
    overwrite: bool = False,
    made: Path | None = None,
    watch: Watch = lambda progress: None,
    tell: Callable[[str], None] = lambda line: None,
) -> SweepResult:
    """Does all runs of a sweep that are not done, and leaves the results in its folder.

    A run that fails stops no other; it is told in the result, and tried again at the next attempt. A process that is
    killed leaves what is done: the next attempt goes on from there.

    Args:
        sweep: the sweep, as `expand` makes it.
        jobs: number of processes at a time, >= 1; None for as many as suit the machine.
        overwrite: whether to move an earlier sweep in the folder to `<name>.previous` first.
        made: folder in which silos are kept as they were made, for other sweeps too; None for one in the sweep's own.
        watch: function called while runs go on, as for `work`.
        tell: function called with one line for each matter that the user should know.

    Raises:
        ConfigError: a value that no run may have, silos that an owner keeps, or a folder that holds something else.
        RunError: a run in the folder began with another configuration, or another process works in it.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(explain("jobs", jobs, "must be >= 1", "leave it out for what suits the machine"))
    check_runs(sweep)
    check_ours(sweep.folder)
    with worked_on_alone(sweep.folder):
        if not overwrite:
            return _attempt(sweep, jobs, made, watch, tell)
        move_aside(sweep.folder)
    with worked_on_alone(sweep.folder):
        return _attempt(sweep, jobs, made, watch, tell)


def _attempt(
    sweep: Sweep, jobs: int | None, made: Path | None, watch: Watch, tell: Callable[[str], None]
) -> SweepResult:
    take_up(sweep)
    done = finished_runs(sweep)
    missing = [run for run in sweep.everything if run.name not in done]
    tasks = plan_tasks(sweep, made or sweep.folder / MADE_FOLDER, missing, begun_runs(sweep))
    silos = [task.name for task in tasks if task.job["do"] == "silos"]
    count = jobs or _jobs_for(missing)
    tell(_in_words(sweep, len(done), len(silos), count if missing else 0))
    started = time.monotonic()
    outcomes = work(tasks, sweep.folder, count, watch)
    failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure}
    for run in finished_runs(sweep).values():
        if not (run.folder / REPORT_FILE).exists():  # an earlier attempt was stopped between its end and its page
            draw(run.folder)
    rows = rows_of(sweep, failures)
    summaries = summarise(sweep, rows)
    attempt = Attempt(
        jobs=count,
        seconds=round(time.monotonic() - started, 2),
        silos_made=sum(name not in failures for name in silos),
        notes=_notes(sweep, rows),
    )
    write_results(sweep, rows, summaries, attempt)
    return SweepResult(sweep, rows, summaries, attempt, failures)


def check_runs(sweep: Sweep) -> None:
    """Looks at what the configurations alone do not show to be wrong, before anything is trained or asked.

    Args:
        sweep: the sweep.

    Raises:
        ConfigError: an unknown architecture, training or field of a policy, naming the setting; silos that an owner
            keeps, or that cannot be copied.
    """
    from fedcpsc.models.registry import check_architecture  # noqa: PLC0415 - brings torch
    from fedcpsc.silos.adopted import check_no_adopted  # noqa: PLC0415
    from fedcpsc.silos.make import configured_silos  # noqa: PLC0415
    from fedcpsc.silos.replica import check_copyable  # noqa: PLC0415

    remedy = "sweep over silos that are trained here: configure another silos.root"
    check_no_adopted(sweep.base, "sweep", sweep.plan.config, remedy)
    for run in (run for run in sweep.everything if run.seed == sweep.plan.seeds[0]):
        try:
            if "/" not in (student := run.config.student.architecture):  # a library's name is the run's to look up
                check_architecture(student)
            for policy in configured_silos(run.config)[1]:
                check_copyable(policy)
        except (ConfigError, SiloError) as error:
            raise ConfigError(f"setting {run.setting.name!r}: {error}") from error


def _jobs_for(missing: Sequence[PlannedRun]) -> int:
    if not missing:
        return 1
    threads = max(run.config.runtime.threads for run in missing)
    return usual_jobs(len(missing), threads, gpu=any(run.config.runtime.device != "cpu" for run in missing))


def _in_words(sweep: Sweep, done: int, silos: int, jobs: int) -> str:
    runs = f"{len(sweep.settings)} settings x {len(sweep.plan.seeds)} seeds = {len(sweep.runs)} runs"
    asking = f", and {len(sweep.banks)} that ask for them" if sweep.banks else ""
    before = f"; {done} of them done before" if done else ""
    ahead = f"; {silos} sets of silos to make, {jobs} processes at a time" if jobs else ""
    return f"{runs}{asking}{before}{ahead}"


def _notes(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    notes = []
    if len(commits := commits_of(rows)) > 1:
        notes.append(f"the runs were made by {len(commits)} commits of the source: {', '.join(commits)}")
    if others := left_out(sweep):
        notes.append(f"runs that the plan no longer has lie in the folder, and are left out: {', '.join(others)}")
    if sweep.banks:
        notes.append(
            "answers are shared: every setting was fitted to answers that were chosen for the configuration as it is,"
            " not to those that it would have asked for"
        )
    return notes
