# SPDX-License-Identifier: Apache-2.0
"""A fourth silo joins later: who is charged, and how the student compares with that of four silos from the start.

    python -m benchmarks.fourth_silo --seeds 1 2 3 4 5 --out benchmarks/results/fourth_silo.json

The images are dealt in four parts, and four teachers trained. One run asks the first three silos. A second one begins
with its answers, and the fourth silo joins. A third run asks the same four silos from the start. All three have the
same seed, number of images and number of rounds. The ledgers are read before and after each run: that the fourth silo
alone was charged by the second one is not reported but asserted. The last two are also refitted with a final fit twice
as long, which charges nobody. Held-out images are the source's test split.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import provenance
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.runs.result import RunResult
from fedcpsc.silos.make import make_silos
from fedcpsc.simulated.silo_facts import read_silo_facts

RUNS = ("three silos", "a fourth joins", "four from the start")
JOINED, WHOLE = RUNS[1:]
REFITTED = {f"{run}, final fit twice as long": run for run in (JOINED, WHOLE)}
SILOS = 4


def charged(silos: Path) -> list[int]:
    """Number of images charged in each silo's ledger, over all time."""
    counts = []
    for number in range(SILOS):
        with contextlib.closing(Ledger.read(silos / str(number) / LEDGER_FILE)) as ledger:
            counts.append(ledger.status().spent.answers)
    return counts


def ask(config: RunConfig, silos: Path, run_dir: Path) -> tuple[RunResult, list[int]]:
    """One run over the first `silos.count` silos; its result, and what it charged in each of the four ledgers."""
    before = charged(silos)
    gatekeepers = [open_gatekeeper(silos / str(number)) for number in range(config.silos.count)]
    transport = LocalTransport(gatekeepers)
    try:
        facts = read_silo_facts(silos)
        result = distill(config, transport, run_dir, evaluation=evaluation_images(config), silo_facts=facts)
    finally:
        transport.close()
        for gatekeeper in gatekeepers:
            gatekeeper.close()
    return result, [after - earlier for earlier, after in zip(before, charged(silos), strict=True)]


def compare(config: str, overrides: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """All three runs of one seed.

    Raises:
        AssertionError: another silo than the fourth was charged when it joined.
    """
    given = [*overrides, f"seed={seed}", f"silos.partition.parts={SILOS}"]
    silos = folder / "silos"
    make_silos(load_config(config, [*given, f"silos.count={SILOS}"]), silos)
    three = load_config(config, [*given, f"silos.count={SILOS - 1}", "output.name=three"])
    four = load_config(config, [*given, f"silos.count={SILOS}", "output.name=four"])
    joined = load_config(
        config,
        [*given, f"silos.count={SILOS}", "output.name=joined", f"queries.start_from={folder / 'three'}"],
    )
    answers = four.queries.answers_per_silo
    figures: dict[str, Any] = {"seed": seed}
    plans = zip(RUNS, (three, joined, four), ([answers] * 3 + [0], [0, 0, 0, answers], [answers] * 4), strict=True)
    for name, plan, due in plans:
        result, charges = ask(plan, silos, folder / plan.output.name)
        assert charges == due, f"{name}: charged {charges}, not {due}"
        figures[name] = _figures(result, charges)
        print(f"seed {seed}, {name}: {json.dumps(figures[name])}", flush=True)
    for name, run in REFITTED.items():
        plan, before = {JOINED: joined, WHOLE: four}[run], charged(silos)
        student = plan.student.model_copy(update={"final_steps": 2 * plan.final_steps})
        changed = plan.model_copy(update={"student": student})
        source, facts = folder / plan.output.name, read_silo_facts(silos)
        result = refit(source, changed, folder / "refit", evaluation=evaluation_images(plan), silo_facts=facts)
        shutil.rmtree(folder / "refit")
        charges = [after - earlier for earlier, after in zip(before, charged(silos), strict=True)]
        assert charges == [0] * SILOS, f"{name}: charged {charges}"
        figures[name] = _figures(result, charges)
        print(f"seed {seed}, {name}: {json.dumps(figures[name])}", flush=True)
    return figures


def _figures(result: RunResult, charges: list[int]) -> dict[str, Any]:
    return {
        "student": result["student"]["accuracy"],
        "ensemble": result["ensemble"]["accuracy"],
        "charged": charges,
        "seconds": result["seconds"]["total"],
    }


def summary(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each run's student and ensemble, and of the later joiner's difference, in %."""
    runs = {
        name: {
            "student": _spread([100 * row[name]["student"] for row in each]),
            "ensemble": _spread([100 * row[name]["ensemble"] for row in each]),
            "charged": each[0][name]["charged"],
        }
        for name in (*RUNS, *REFITTED)
    }
    differences = [100 * (row[JOINED]["student"] - row[WHOLE]["student"]) for row in each]
    return {"runs": runs, "joined_minus_from_the_start": _spread(differences)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 2), "std": round(deviation, 2)}


def main() -> int:
    """Measures, prints and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", default="fourth_silo.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    each = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            each.append(compare(given.config, given.set, seed, Path(folder)))
    row = {
        "benchmark": "fourth_silo",
        "config": given.config,
        "set": given.set,
        "seeds": given.seeds,
        **summary(each),
        "each": each,
        **provenance(),
    }
    Path(given.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: row[key] for key in ("runs", "joined_minus_from_the_start")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
