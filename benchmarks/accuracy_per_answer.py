# SPDX-License-Identifier: Apache-2.0
"""Accuracy against answers, over settings and seeds: the figures of the README's tables.

    python -m benchmarks.accuracy_per_answer benchmarks/plans/single.yaml --data ../data --out results.json

A plan is a YAML list of settings: `{name, config, set: [a.b=c, ...], seeds: [...]}`, in which `{data}` stands for the
folder of the data sets. Every run is the product's own
(`fedcpsc run --local`): silos, gatekeepers, ledgers and the round loop. Runs go to worker processes; a failed run is
reported and stops no other. Plans that *choose* anything set `data.validation`, which evaluates on training images
kept from every silo; the test split is only for figures that are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import RunConfig, load_config
from fedcpsc.runs.metrics import read_metrics
from fedcpsc.seeding import derive_seed
from fedcpsc.typed_yaml import read_yaml


def run_one(setting: dict[str, Any], seed: int, data: str, silos_root: str, threads: int) -> dict[str, Any]:
    """One run in a scratch folder; silos are shared by all settings that train the same ones."""
    import torch  # noqa: PLC0415 - after the fork server, with its own thread count

    from fedcpsc.silos.make import make_silos  # noqa: PLC0415
    from fedcpsc.simulated.one_process import run_local  # noqa: PLC0415

    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    overrides = [*settled(setting, data), f"seed={seed}", f"runtime.threads={threads}"]
    config = load_config(setting["config"], overrides)
    begun = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        silos, run_dir = Path(scratch) / "silos", Path(scratch) / "run"
        shared = Path(silos_root) / silos_key(config)
        if shared.exists():
            shutil.copytree(shared, silos)
        make_silos(config, silos)
        if not shared.exists():
            keep(silos, shared)
        result = run_local(config, run_dir, silos, resume=False, on_line=lambda line: None)
        lines = read_metrics(run_dir)
    result["setting"] = setting["name"]
    result["wall_s"] = round(time.time() - begun, 1)
    result["curve"] = [
        (line["answers_used"], round(line["student_accuracy"], 4)) for line in lines if "student_accuracy" in line
    ]
    result["entropy"] = lines[-1]["entropy"]
    return result


def keep(silos: Path, shared: Path) -> None:
    """Keeps freshly made silos, their ledgers unspent, for other runs; another worker may have been first."""
    partial = Path(tempfile.mkdtemp(dir=shared.parent))
    shutil.copytree(silos, partial, dirs_exist_ok=True)
    try:
        partial.rename(shared)
    except OSError:
        shutil.rmtree(partial)


def silos_key(config: RunConfig) -> str:
    """Equal for runs whose silos are equal."""
    made_from = {"data": config.data, "silos": config.silos, "teachers": config.teachers}
    text = json.dumps({key: part.model_dump(mode="json") for key, part in made_from.items()}, sort_keys=True)
    return f"{derive_seed(config.seed, text):016x}"


def settled(setting: dict[str, Any], data: str) -> list[str]:
    """The setting's overrides, with the folder of the data sets filled in."""
    return [item.format(data=data) for item in setting.get("set", [])]


def summary(setting: dict[str, Any], results: list[dict[str, Any]], data: str) -> dict[str, Any]:
    """One row: means and standard deviations over the setting's seeds."""
    config = load_config(setting["config"], settled(setting, data))
    partition = config.silos.partition

    def mean_std(values: list[float]) -> tuple[float, float]:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return round(100 * statistics.mean(values), 2), round(100 * spread, 2)

    student = mean_std([r["student"]["accuracy"] for r in results])
    teacher = mean_std([max(s["teacher_accuracy"] for s in r["silos"]) for r in results])
    ensemble = mean_std([r["ensemble"]["accuracy"] for r in results])
    return {
        "setting": setting["name"],
        "data": f"{config.data.source}:{Path(config.data.path or '').name}" if config.data.path else config.data.source,
        "silos": config.silos.count,
        "alpha": partition.alpha if partition.kind == "dirichlet" and config.silos.count > 1 else None,
        "class_counts": RULES.get(config.aggregation.rule).needs_class_reports,
        "form": config.queries.form,
        "answers": max(r["answers_per_silo"] for r in results),
        "mean": student[0],
        "std": student[1],
        "each": [round(100 * r["student"]["accuracy"], 2) for r in results],
        "seeds": [r["seed"] for r in results],
        "teacher": teacher[0],
        "ensemble": ensemble[0],
        "split": "validation" if config.data.validation else "test",
        "device": results[0]["device"],
        "seconds": round(statistics.mean(r["wall_s"] for r in results), 1),
        "versions": results[0]["versions"],
        "commit": results[0]["commit"],
        "config": setting["config"],
        "set": setting.get("set", []),
    }


def merge(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes `rows` into the file, each in place of an older row of its setting with as many answers."""
    older = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    anew = {(row["setting"], row.get("answers")) for row in rows}
    kept = [row for row in older if (row["setting"], row.get("answers")) not in anew] + rows
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Runs the plans and merges their rows into one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", help="YAML lists of settings")
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--out", default="accuracy_per_answer.json")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each worker")
    parser.add_argument("--silos", default="", help="folder in which teachers are kept for the next call")
    parser.add_argument("--only", default="", help="run only settings whose name contains this")
    parser.add_argument("--commit", default="", help="what to record where there is no git")
    arguments = parser.parse_args()
    settings = [s for plan in arguments.plans for s in read_yaml(plan)["settings"] if arguments.only in s["name"]]
    silos = arguments.silos or tempfile.mkdtemp(prefix="fedcpsc-silos-")
    Path(silos).mkdir(parents=True, exist_ok=True)
    done: dict[str, list[dict[str, Any]]] = {setting["name"]: [] for setting in settings}
    rows: list[dict[str, Any]] = []
    failed = 0
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(run_one, setting, seed, arguments.data, silos, arguments.threads): setting
            for setting in settings
            for seed in setting.get("seeds", [1, 2, 3])
        }
        for job in as_completed(jobs):
            setting = jobs[job]
            try:
                result = job.result()
            except Exception:
                failed += 1
                traceback.print_exc()
                continue
            done[setting["name"]].append(result)
            curve = " ".join(
                f"{answers}:{100 * value:.1f}"
                for answers, value in result["curve"][:: max(1, len(result["curve"]) // 4)]
            )
            print(
                f"{setting['name']:<40} seed {result['seed']:<4} student {100 * result['student']['accuracy']:.2f} "
                f"ensemble {100 * result['ensemble']['accuracy']:.2f} entropy {result['entropy']:.2f} "
                f"{result['wall_s']:.0f}s | {curve}",
                flush=True,
            )
            finished = done[setting["name"]]
            if len(finished) == len(setting.get("seeds", [1, 2, 3])):
                rows.append(summary(setting, sorted(finished, key=lambda r: r["seed"]), arguments.data))
                if arguments.commit:
                    rows[-1]["commit"] = arguments.commit
                merge(Path(arguments.out), rows)
    for row in sorted(rows, key=lambda r: r["setting"]):
        print(f"{row['setting']:<40} {row['mean']:.2f} +- {row['std']:.2f}  ensemble {row['ensemble']:.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
