# SPDX-License-Identifier: Apache-2.0
"""Accuracy against epsilon with shard votes: what a silo's privacy budget buys a student.

    python -m benchmarks.shard_votes --data ../data/mnist --out benchmarks/results/shard_votes.json

The silo's K teachers are trained once. For each (sigma, epsilon) its folder is copied, given that policy and a fresh
ledger, and asked exactly as often as the policy allows, by students of several seeds. Draws the curve beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.record import provenance
from fedcpsc.config import load_config
from fedcpsc.gatekeeper.mechanisms.shard_votes import ShardVotesPolicy
from fedcpsc.gatekeeper.opening import begin_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, save_policy
from fedcpsc.ledger.ledger import LEDGER_FILE
from fedcpsc.privacy.accounting import max_answers
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.one_process import run_local

CONFIG = "configs/mnist_shards.yaml"
POINTS = ((0.1, 2.0), (0.1, 4.0), (0.1, 8.0), (0.2, 2.0), (0.2, 8.0))
DELTA = 1e-5
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}


def point(made: Path, data: str, sigma: float, epsilon: float, seeds: list[int], shards: int) -> dict[str, Any]:
    """One policy, asked until its epsilon is spent, by a student of each seed."""
    cost = Fraction(2) / (shards * Fraction(repr(sigma))) ** 2
    answers = max_answers(cost, epsilon, DELTA)
    students, ensemble = [], 0.0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            silo = Path(place) / "silos" / "0"
            shutil.copytree(made / "0", silo, ignore=shutil.ignore_patterns(f"{LEDGER_FILE}*"))
            mechanism = ShardVotesPolicy(epsilon=epsilon, delta=DELTA, sigma=sigma)
            save_policy(Policy(answers=answers, bits=32, mechanism=mechanism), silo / POLICY_FILE)
            begin_ledger(silo).close()
            overrides = [f"data.path={data}", f"seed={seed}", f"queries.answers_per_silo={answers}"]
            config = load_config(CONFIG, overrides)
            result = run_local(config, Path(place) / "run", silo.parent, resume=False, on_line=lambda line: None)
        assert result["silos"][0]["answers"] == answers
        students.append(100 * result["student"]["accuracy"])
        ensemble = 100 * result["ensemble"]["accuracy"]
    row = {
        "sigma": sigma,
        "epsilon": epsilon,
        "delta": DELTA,
        "unit": "record",
        "relation": result["silos"][0]["relation"],
        "answers": answers,
        "mean": round(statistics.mean(students), 2),
        "std": round(statistics.stdev(students), 2) if len(students) > 1 else 0.0,
        "each": [round(value, 2) for value in students],
        "seeds": seeds,
        "ensemble": round(ensemble, 2),
    }
    print(json.dumps(row), flush=True)
    return row


def draw(path: Path, rows: list[dict[str, Any]], shards: int) -> None:
    """Student accuracy against epsilon, one line for each sigma."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for sigma, marker, colour, above in ((0.1, "o", "#0b6e99", -14), (0.2, "s", "#b5541c", 9)):
        own = [row for row in rows if row["sigma"] == sigma]
        x, y = [row["epsilon"] for row in own], [row["mean"] for row in own]
        error = [row["std"] for row in own]
        axis.errorbar(
            x, y, error, marker=marker, color=colour, capsize=3, label=f"sigma {sigma} on each mean probability"
        )
        for row in own:
            where = (row["epsilon"], row["mean"])
            label = f"{row['answers']:,} answers"
            axis.annotate(label, where, (8, above), textcoords="offset points", fontsize=8, bbox=_PAPER)
    axis.axhline(rows[0]["ensemble"], color="#5b6770", linestyle="--", label=f"the {shards} teachers' mean, no noise")
    axis.set_xscale("log", base=2)
    axis.set_xticks([2, 4, 8], ["2", "4", "8"])
    axis.set_xlim(1.7, 11)
    axis.set_ylim(0, 102)
    axis.set_xlabel("epsilon per record at delta 1e-5, when the budget is spent")
    axis.set_ylabel("student accuracy, %")
    axis.grid(alpha=0.25)
    axis.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Measures, writes the JSON, draws the PNG beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train.parquet and test.parquet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", default="shard_votes.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(CONFIG, [f"data.path={arguments.data}"])
    shards = int(config.teachers.training["shards"])
    with tempfile.TemporaryDirectory() as made:
        make_silos(config, Path(made), lambda line: print(line, flush=True))
        rows = [point(Path(made), arguments.data, *p, arguments.seeds, shards) for p in POINTS]
    out = Path(arguments.out)
    report = {"benchmark": "shard_votes", "config": CONFIG, "shards": shards, "points": rows, **provenance()}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(out.with_suffix(".png"), rows, shards)
    return 0


if __name__ == "__main__":
    sys.exit(main())
