# SPDX-License-Identifier: Apache-2.0
"""The three claims of CPSC-DFKD, and what each departure of its authors' code is worth, over data sets and seeds.

    python -m benchmarks.white_box_claims benchmarks/white_box_claims.yaml --data ../data --out claims.json

Every run is the product's own (`fedcpsc white-box`). A plan has data sets, settings and quirks; each setting is run on
each data set, without quirks, and so are the unchanged setting with each quirk alone and with all of them. A row is
written as soon as its run is done. Given again, the command goes on where it was, within a run too. Accuracies are of
the last epoch on the test split, which chooses nothing; the best epoch's stands beside it, since the authors take that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.accuracy_per_answer import filled
from benchmarks.image_diversity import diversity
from benchmarks.record import provenance
from fedcpsc.data.sources import load_evaluation
from fedcpsc.files import write_whole
from fedcpsc.runs.layout import GENERATOR_FILE, METRICS_FILE, WHITE_BOX_TEACHER_FILE
from fedcpsc.runs.result import read_white_box_result
from fedcpsc.sweep.words import as_override
from fedcpsc.typed_yaml import Strict, load_as
from fedcpsc.white_box.conditioning import build_conditioned
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks
from fedcpsc.white_box.run import run_white_box
from fedcpsc.white_box.teacher import make_teacher, read_teacher, save_network

ALL_QUIRKS = "all quirks"


class ClaimsPlan(Strict):
    """Data sets x settings x seeds, and the quirks that are tried alone."""

    config: str
    seeds: tuple[int, ...]
    data: dict[str, dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    quirks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        data: name of the data set.
        setting: name of the setting; of a quirk's runs the quirk's.
        seed: seed of all of it.
        changes: changes to the plan's configuration, by dotted key.
        quirks: departures of the authors' code.
    """

    data: str
    setting: str
    seed: int
    changes: dict[str, Any]
    quirks: Quirks = field(default_factory=Quirks)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells its row from the others."""
        return self.data, self.setting, self.seed


def planned(plan: ClaimsPlan) -> Iterator[PlannedRun]:
    """The runs, all of a seed before those of the next: whoever stops early has whole comparisons."""
    alone = {name: Quirks(**{name: True}) for name in plan.quirks}
    departures = alone | ({ALL_QUIRKS: Quirks.all(True)} if alone else {})
    for seed in plan.seeds:
        for data, changes in plan.data.items():
            for name, more in plan.settings.items():
                yield PlannedRun(data, name, seed, changes | more)
            for name, quirks in departures.items():
                yield PlannedRun(data, name, seed, changes, quirks)


def overrides_of(run: PlannedRun) -> list[str]:
    """Changes of a run to the plan's configuration, as `--set` takes them; one thread of the CPU."""
    changes = {**run.changes, "seed": run.seed, "runtime.device": "cpu", "runtime.threads": 1}
    return [as_override(key, value) for key, value in changes.items()]


def measure(plan: ClaimsPlan, run: PlannedRun, runs: Path) -> dict[str, Any]:
    """Makes the run, or finishes it, and gives its row.

    Args:
        plan: plan with the folder of the data sets filled in.
        run: one of its runs.
        runs: folder of the runs' folders; teachers are trained once for a data set and seed.
    """
    torch.set_num_threads(1)
    folder = runs / run.data.replace(" ", "_") / str(run.seed)
    config = load_as(WhiteBoxConfig, plan.config, overrides_of(run))
    evaluation = load_evaluation(config.data, run.seed)
    assert evaluation is not None, "the data set has no held-out images"
    kept = folder / WHITE_BOX_TEACHER_FILE
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_network(make_teacher(config, torch.device("cpu")), kept)
    teacher = read_teacher(config, kept, evaluation.classes, evaluation.image_shape)
    config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"weights": str(kept)})})
    run_dir = folder / run.setting.replace(" ", "_")
    result = read_white_box_result(run_dir)
    if result is None:
        result = run_white_box(config, run_dir, resume=True, quirks=run.quirks)
    generator = build_conditioned(
        config.generator, evaluation.classes, evaluation.image_shape, seed=0, reference_order=run.quirks.norm_after_tanh
    )
    generator.load_state_dict(load_file(run_dir / GENERATOR_FILE))
    labelled = config.generator.condition != "none"
    lines = map(json.loads, (run_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines())
    each = [line["student_accuracy"] for line in lines if "student_accuracy" in line]
    return {
        "data": run.data,
        "setting": run.setting,
        "seed": run.seed,
        "quirks": [name for name in Quirks.names() if getattr(run.quirks, name)],
        "student": round(100 * each[-1], 2),
        "best_epoch": round(100 * max(each), 2),
        "teacher": round(100 * (result["teacher"]["accuracy"] or 0.0), 2),
        **diversity(teacher, generator, config.generator.nz, evaluation, run.seed, labelled=labelled),
        "teacher_images": result["teacher_images"],
        "seconds": result["seconds"]["distillation"],
        "changes": run.changes,
        **provenance(),
    }


def main() -> int:
    """Makes the runs of a plan that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML file of the plan")
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("white_box_claims.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/white_box_claims"), help="folder of the runs")
    parser.add_argument("--only", default="", help="run only data sets and settings whose names contain this")
    parser.add_argument("--seeds", type=int, nargs="*", help="run only these seeds of the plan")
    given = parser.parse_args()
    as_written = load_as(ClaimsPlan, given.plan)
    plan = as_written.model_copy(update={"data": filled(as_written.data, given.data)})
    rows: list[dict[str, Any]] = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else []
    done = {(row["data"], row["setting"], row["seed"]) for row in rows}
    for run, shown in zip(planned(plan), planned(as_written), strict=True):
        wanted = given.only in f"{run.data}, {run.setting}" and (given.seeds is None or run.seed in given.seeds)
        if run.key in done or not wanted:
            continue
        row = measure(plan, run, given.runs) | {"changes": shown.changes}  # not where this machine keeps its data
        rows.append(row)
        write_whole(given.out, json.dumps(rows, indent=1) + "\n")
        figures = {name: row[name] for name in ("student", "recall", "entropy", "distance", "seconds")}
        print(f"{run.data}, {run.setting}, seed {run.seed}: {figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
