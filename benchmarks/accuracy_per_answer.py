# SPDX-License-Identifier: Apache-2.0
"""Accuracy against answers, over settings and seeds: the figures of the README's tables.

    python -m benchmarks.accuracy_per_answer benchmarks/plans/main_*.yaml --data ../data --out results.json

A plan is a sweep's (`fedcpsc sweep`, docs/sweeps.md), in which `{data}` stands for the folder of the data sets. Every
run is the product's own: silos, gatekeepers, ledgers and the round loop. A failed run is reported and stops no other;
given again, the command goes on where it was. Plans that *choose* anything set `data.validation`, which evaluates on
training images kept from every silo; the test split is only for figures that are reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import merge
from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import load_config
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.runs.result import RunResult, read_result
from fedcpsc.runs.seeds import best_teacher
from fedcpsc.sweep.expand import PlannedRun, Setting, Sweep, expand
from fedcpsc.sweep.plan import SweepPlan, load_plan
from fedcpsc.sweep.run import run_sweep
from fedcpsc.sweep.schedule import Progress

_MOST_RUNS = 10_000  # a benchmark's plans are written once and read by others: no grid explodes unseen


def plan_of(path: Path, data: str, only: str = "") -> SweepPlan:
    """The plan in a file, with the folder of the data sets filled in.

    Args:
        data: folder of the data sets.
        only: words that the names of the settings must contain.
    """
    plan = load_plan(path)
    settings = {name: filled(changes, data) for name, changes in plan.settings.items() if only in name}
    return plan.model_copy(update={"set": filled(plan.set, data), "settings": settings})


def filled(value: Any, data: str) -> Any:
    """A plan's value, or a part of it, with the folder of the data sets in the place of every `{data}`."""
    if isinstance(value, dict):
        return {key: filled(part, data) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(part, data) for part in value)
    return value.replace("{data}", data) if isinstance(value, str) else value


def summary(plan: SweepPlan, setting: Setting, runs: list[PlannedRun], results: list[RunResult]) -> dict[str, Any]:
    """One row: means and standard deviations over the setting's seeds.

    Args:
        plan: the plan as its file has it, without the folder of the data sets.
        setting: the setting.
        runs: runs of the setting, in the order of the seeds.
        results: their results.
    """
    config = runs[0].config
    partition = config.silos.partition

    each = [result["student"]["accuracy"] or 0.0 for result in results]
    student = _mean_std(each)
    teacher = _mean_std([best_teacher(result) or 0.0 for result in results])
    ensemble = _mean_std([result["ensemble"]["accuracy"] or 0.0 for result in results])
    made = [result.get("federated_evaluation", {}).get("adjustment") for result in results]
    before = [adjustment["accuracy_before"] for adjustment in made if adjustment is not None]
    source = config.data.source
    return {
        "setting": setting.name,
        "data": f"{source}:{Path(config.data.path).name}" if config.data.path else source,
        "silos": config.silos.count,
        "alpha": partition.alpha if partition.kind == "dirichlet" and config.silos.count > 1 else None,
        "class_counts": RULES.get(config.aggregation.rule).needs_class_reports,
        "form": config.queries.form,
        "answers": max(result["answers_per_silo"] for result in results),
        "mean": student[0],
        "std": student[1],
        "each": [round(100 * value, 2) for value in each],
        **({"before_adjustment": _mean_std(before)} if len(before) == len(results) and None not in before else {}),
        "seeds": [result["seed"] for result in results],
        "teacher": teacher[0],
        "ensemble": ensemble[0],
        "split": "validation" if config.data.validation else "test",
        "device": results[0]["device"],
        "passes": load_config(runs[0].folder / CONFIG_FILE).student.precision,
        "seconds": round(statistics.mean(result["seconds"]["total"] for result in results), 1),
        "versions": results[0]["versions"],
        "commit": results[0]["commit"],
        "config": plan.config,
        "set": [*plan.set, *setting.overrides],
    }


def _mean_std(values: list[float]) -> tuple[float, float]:
    """In per cent."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return round(100 * statistics.mean(values), 2), round(100 * spread, 2)


class Recorder:
    """Watches a sweep: prints a line for each run that ends, and merges a row as soon as a setting has all its seeds.

    Args:
        plan: the plan as its file has it, without the folder of the data sets.
        sweep: the sweep.
        out: JSON file of the rows.
        commit: what to record where there is no git.
        data: folder of the data sets, which a row calls `{data}` as the plan does; empty where none was filled in.
    """

    def __init__(self, plan: SweepPlan, sweep: Sweep, out: Path, commit: str = "", data: str = "") -> None:
        self._plan = plan
        self._sweep = sweep
        self._out = out
        self._commit = commit
        self._data = data
        self.rows: dict[str, dict[str, Any]] = {}

    def watch(self, progress: Progress) -> None:
        """Takes each look at the processes."""
        if progress.ended is None:
            return
        task, outcome = progress.ended
        if outcome.failure is not None:
            print(f"{task.title}: failed: {outcome.failure}", file=sys.stderr, flush=True)
        elif task.run is not None:
            _print_run(task.run)
            self.record(task.run.setting)

    def record(self, setting: Setting) -> None:
        """Merges the setting's row, where all its runs are done; runs that only ask for the others have none."""
        runs = [run for run in self._sweep.runs if run.setting is setting]
        results = [result for run in runs if (result := read_result(run.folder)) is not None]
        if not runs or setting.name in self.rows or len(results) < len(runs):
            return
        row = summary(self._plan, setting, runs, results)
        if self._data:
            row["set"] = [change.replace(f"={self._data}", "={data}") for change in row["set"]]
        self.rows[setting.name] = row | ({"commit": self._commit} if self._commit else {})
        merge(self._out, [self.rows[setting.name]])


def _print_run(run: PlannedRun) -> None:
    result, lines = read_result(run.folder), read_metrics(run.folder)
    if result is None:
        return
    points = [(line["answers_used"], line["student_accuracy"]) for line in lines if "student_accuracy" in line]
    curve = " ".join(f"{answers}:{100 * value:.1f}" for answers, value in points[:: max(1, len(points) // 4)])
    print(
        f"{run.setting.name:<40} seed {run.seed:<4} student {100 * (result['student']['accuracy'] or 0):.2f} "
        f"ensemble {100 * (result['ensemble']['accuracy'] or 0):.2f} entropy {lines[-1]['entropy']:.2f} "
        f"{result['seconds']['total']:.0f}s | {curve}",
        flush=True,
    )


def main() -> int:
    """Runs the plans and merges their rows into one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", type=Path, help="YAML files of plans")
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("accuracy_per_answer.json"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each worker")
    parser.add_argument("--sweeps", type=Path, default=Path("sweeps"), help="folder of the plans' runs")
    parser.add_argument("--silos", type=Path, help="folder in which teachers are kept for other plans too")
    parser.add_argument("--only", default="", help="run only settings whose name contains this")
    parser.add_argument("--commit", default="", help="what to record where there is no git")
    arguments = parser.parse_args()
    failed = False
    rows: list[dict[str, Any]] = []
    for path in arguments.plans:
        plan = plan_of(path, arguments.data, arguments.only)
        if not plan.settings:
            continue
        folder = arguments.sweeps / str(plan.name)
        sweep = expand(plan, folder, [f"runtime.threads={arguments.threads}"], _MOST_RUNS)
        recorder = Recorder(load_plan(path), sweep, arguments.out, arguments.commit, arguments.data)
        result = run_sweep(sweep, jobs=arguments.workers, made=arguments.silos, watch=recorder.watch, tell=print)
        for setting in sweep.settings:  # also those whose runs were all done before
            recorder.record(setting)
        failed = failed or bool(result.failures)
        rows += recorder.rows.values()
    for row in sorted(rows, key=lambda row: str(row["setting"])):
        print(f"{row['setting']:<40} {row['mean']:.2f} +- {row['std']:.2f}  ensemble {row['ensemble']:.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
