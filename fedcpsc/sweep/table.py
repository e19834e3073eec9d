# SPDX-License-Identifier: Apache-2.0
"""A sweep's table: one row for each run, and for each setting mean and spread over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedcpsc.errors import RunError
from fedcpsc.runs.failure import read_failure
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.result import RunResult, read_result
from fedcpsc.runs.seeds import FigureOfSeeds, best_teacher, figure_of_seeds
from fedcpsc.sweep.expand import PlannedRun, Setting, Sweep

__all__ = ["Row", "Summary", "commits_of", "row_of", "rows_of", "summarise"]


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        setting: setting of the run.
        seed: seed of the run.
        values: value of each varied key in the run's configuration.
        state: whether it is finished, failed, or not done yet.
        student, ensemble, best_teacher: accuracies, in [0, 1]; None where not measured.
        answers: largest number of images that a silo answered for it; of shared answers those of the run that asked.
        bank: name of the run whose answers it was fitted to; empty where it asked for itself.
        epsilon: largest epsilon that a silo claims; None where not every silo has one.
        entropy: entropy of the classes that the silos saw in the images at the end, in [0, 1].
        seconds: seconds of the run.
        run: name of the run's folder.
        commit: commit of the source that made it; None where it had none.
        versions: versions of Python and of what it stands on.
        failure: reason why it failed, in words; empty where it did not.
    """

    setting: str
    seed: int
    values: Mapping[str, object]
    state: Literal["finished", "failed", "missing"]
    student: float | None = None
    ensemble: float | None = None
    best_teacher: float | None = None
    answers: int | None = None
    bank: str = ""
    epsilon: float | None = None
    entropy: float | None = None
    seconds: float | None = None
    run: str = ""
    commit: str | None = None
    versions: Mapping[str, str] | None = None
    failure: str = ""


@dataclass(frozen=True)
class Summary:
    """One setting over its seeds.

    Attributes:
        setting: the setting.
        count: number of its finished runs.
        missing: number of its runs that failed or are not done.
        student, ensemble, best_teacher, seconds: figures of the finished runs, in the order of the seeds.
        difference: the student's accuracy less that of the first setting with the same seed, over the seeds that both
            have; its mean is None where they have none, and for the first setting itself.
        answers: largest number of images that a silo answered for one of its runs; None where none has finished.
        epsilon: largest epsilon of its runs; None where one of them has none.
    """

    setting: Setting
    count: int
    missing: int
    student: FigureOfSeeds
    ensemble: FigureOfSeeds
    best_teacher: FigureOfSeeds
    difference: FigureOfSeeds
    seconds: FigureOfSeeds
    answers: int | None
    epsilon: float | None


def rows_of(sweep: Sweep, failures: Mapping[str, str]) -> list[Row]:
    """The rows of all runs, setting by setting and seed by seed.

    Args:
        sweep: the sweep.
        failures: reasons why runs failed at this attempt, by the run's name.
    """
    place = {setting.name: number for number, setting in enumerate(sweep.settings)}
    runs = sorted(sweep.runs, key=lambda run: place[run.setting.name])  # stable: seeds stay in their order
    return [row_of(run, sweep.bank_of(run), failures.get(run.name)) for run in runs]


def row_of(run: PlannedRun, bank: PlannedRun | None, failure: str | None) -> Row:
    """The row of one run.

    Args:
        run: the run.
        bank: the run whose answers it was fitted to; None where it asked for itself.
        failure: reason why it failed at this attempt, in words; None where it did not.
    """
    start = Row(
        setting=run.setting.name,
        seed=run.seed,
        values=run.setting.values,
        state="missing",
        bank="" if bank is None else bank.name,
        run=run.name,
    )
    try:
        result = None if failure else read_result(run.folder)
        asked = result if bank is None or result is None else read_result(bank.folder) or result
        lines = read_metrics(run.folder) or (() if bank is None else read_metrics(bank.folder))
    except RunError as error:
        return replace(start, state="failed", failure=str(error))
    if result is None or asked is None:
        why = failure or read_failure(run.folder) or ""
        return replace(start, state="failed" if why else "missing", failure=why)
    return replace(
        start,
        state="finished",
        student=result["student"]["accuracy"],
        ensemble=result["ensemble"]["accuracy"],
        best_teacher=best_teacher(result),
        answers=asked["answers_per_silo"],
        epsilon=_epsilon(asked),
        entropy=float(lines[-1]["entropy"]) if lines else None,
        seconds=result["seconds"]["total"],
        commit=result["commit"],
        versions=result["versions"],
    )


def summarise(sweep: Sweep, rows: Sequence[Row]) -> list[Summary]:
    """One summary for each setting, in the plan's order.

    Args:
        sweep: the sweep.
        rows: rows of all its runs.
    """
    of_setting = {setting.name: [row for row in rows if row.setting == setting.name] for setting in sweep.settings}
    first = {row.seed: row.student for row in of_setting[sweep.settings[0].name]}
    found = []
    for setting in sweep.settings:
        done = [row for row in of_setting[setting.name] if row.state == "finished"]
        pairs = [
            row.student - other
            for row in done
            if row.student is not None and (other := first.get(row.seed)) is not None
        ]
        answers = [row.answers for row in done if row.answers is not None]
        epsilons = [row.epsilon for row in done if row.epsilon is not None]
        found.append(
            Summary(
                setting=setting,
                count=len(done),
                missing=len(of_setting[setting.name]) - len(done),
                student=figure_of_seeds([row.student for row in done]),
                ensemble=figure_of_seeds([row.ensemble for row in done]),
                best_teacher=figure_of_seeds([row.best_teacher for row in done]),
                difference=figure_of_seeds([] if setting is sweep.settings[0] else pairs),
                seconds=figure_of_seeds([row.seconds for row in done]),
                answers=max(answers, default=None),
                epsilon=max(epsilons) if epsilons and len(epsilons) == len(done) else None,
            )
        )
    return found


def commits_of(rows: Sequence[Row]) -> list[str]:
    """Commits that made the finished runs, each once, "unknown" where one had none."""
    return list(dict.fromkeys(row.commit or "unknown" for row in rows if row.state == "finished"))


def _epsilon(result: RunResult) -> float | None:
    claims = [silo["epsilon"] for silo in result["silos"] if silo["dp"] and silo["epsilon"] is not None]
    return max(claims) if claims and len(claims) == len(result["silos"]) else None
