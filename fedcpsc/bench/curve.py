# SPDX-License-Identifier: Apache-2.0
"""Accuracy against answers: whole runs of each side and seed, by turns."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fedcpsc.bench.children import Child
from fedcpsc.bench.results import Curve, CurvePoint, CurveRun
from fedcpsc.bench.sides import BenchPlan, Side
from fedcpsc.bench.throughput import Tell
from fedcpsc.runs.follow import following
from fedcpsc.runs.metrics import MetricsLine, read_metrics

__all__ = ["measure_curves", "summarised"]


def measure_curves(plan: BenchPlan, sides: Sequence[Side], tell: Tell) -> dict[str, Curve]:
    """Runs every side with every seed, in scratch folders.

    Returns:
        For each side's name its `summarised` runs.

    Raises:
        FedcpscError: a run failed.
    """
    configs = {side.name: side.load() for side in sides}
    runs: dict[str, list[CurveRun]] = {side.name: [] for side in sides}
    total = plan.seeds * len(sides)
    with tempfile.TemporaryDirectory(prefix="fedcpsc-curve-") as scratch:
        kept = {root: Path(scratch) / f"kept-{i}" for i, root in enumerate({side.root for side in sides})}
        for number in range(plan.seeds):
            for index, side in enumerate(sides):
                done = number * len(sides) + index
                seed = configs[side.name].seed + number
                folder = Path(scratch) / f"{side.name}-{seed}"
                folder.mkdir()
                name = f"{side.name}, seed {seed}"
                tell(done / total, f"{name}: its silos")

                def on_line(line: MetricsLine, done: int = done, name: str = name) -> None:
                    tell((done + line["share_done"]) / total, f"{name}: {line['answers_used']:,} answers")

                job = {"do": "curve", "folder": str(folder), "kept": str(kept[side.root]), "set": _of(side, seed)}
                run_dir = folder / "run"
                run_dir.mkdir()
                with following(run_dir, on_line), Child(side, job) as child:
                    ending = child.ending()
                points = [
                    [line["answers_used"], line["student_accuracy"]]
                    for line in read_metrics(run_dir)
                    if line["phase"] == "round" and "student_accuracy" in line
                ]
                runs[side.name].append({"seed": seed, "points": points, **ending})
    return {name: summarised(each) for name, each in runs.items()}


def _of(side: Side, seed: int) -> list[str]:
    return [*side.overrides, f"seed={seed}"]


def summarised(runs: Sequence[CurveRun]) -> Curve:
    """Mean and standard deviation over seeds at each number of answers that all of them reached.

    Args:
        runs: runs of one side, one for each seed, at least one.
    """
    by_seed = [{int(answers): accuracy for answers, accuracy in run["points"]} for run in runs]
    shared = sorted(set.intersection(*(set(points) for points in by_seed)))
    return {
        "seeds": [run["seed"] for run in runs],
        "split": runs[0]["split"],
        "points": [_mean_std(answers, [points[answers] for points in by_seed]) for answers in shared],
        "final": _mean_std(max(int(run["final"][0]) for run in runs), [run["final"][1] for run in runs]),
    }


def _mean_std(answers: int, values: list[float]) -> CurvePoint:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"answers": answers, "mean": statistics.fmean(values), "std": std, "each": values}
