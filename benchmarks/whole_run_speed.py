# SPDX-License-Identifier: Apache-2.0
"""How long a whole run takes here and at an earlier commit: the same command, by turns.

    python -m benchmarks.whole_run_speed --against 24fd8f5 --set data.path=DATA/mnist \\
        --out benchmarks/results/whole_run_speed.json

Each side is `fedcpsc run CONFIG --local` of its own source tree, in a process of its own, over silos that the same tree
made beforehand: start-up, decoding of held-out images, all rounds, the final fit, the teachers' accuracy and the
pictures are counted; the teachers' training is not. Each run has a fresh copy of the silos, so that no answer is a
replay. Seeds go up with the repeats; both sides of a pair have the same seed. CPU seconds are the process's own, which
a busy machine changes little; on quiet cores the wall's are the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import provenance
from fedcpsc.bench.sides import BenchPlan, Side, opened_sides
from fedcpsc.runs.timeline import QUERY, read_timeline

_COMMAND = [sys.executable, "-P", "-c", "from fedcpsc.cli import main; main()"]
_FITTING = ("fit", "final", "synthesis")


def measure(config: Path, overrides: Sequence[str], against: str, repeats: int, out: Path) -> dict[str, Any]:
    """Runs both sides until there are `repeats` pairs, and writes the file after each pair.

    Args:
        config: YAML file of the run.
        overrides: `a.b=c` items of both sides.
        against: revision of the other side.
        repeats: number of pairs, >= 1.
        out: JSON file; pairs that it holds, of the same two commits, are not measured again.
    """
    plan = BenchPlan(config, tuple(overrides), against_commit=against)
    with opened_sides(plan) as sides, tempfile.TemporaryDirectory(prefix="fedcpsc-whole-") as scratch:
        commits, first_seed = {side.name: side.commit for side in sides}, sides[0].load().seed
        row = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"commits": commits, "pairs": []}
        pairs = row["pairs"] if row["commits"] == commits else []
        for number in range(len(pairs), repeats):
            seed = first_seed + number
            pair: dict[str, Any] = {"seed": seed}
            for side in sides if number % 2 == 0 else reversed(sides):
                folder = Path(scratch) / f"{side.name}-{seed}"
                pair[side.name] = _one_run(side, seed, folder)
                shutil.rmtree(folder)
                print(f"seed {seed}, {side.name} ({side.commit}): {json.dumps(pair[side.name])}", flush=True)
            pairs.append(pair)
            row = report(config, overrides, commits, pairs)
            out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return row


def report(
    config: Path, overrides: Sequence[str], commits: dict[str, str | None], pairs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What the file holds.

    Args:
        config, overrides: arguments of `measure`.
        commits: commit of each side by its name.
        pairs: figures of both sides, pair by pair.
    """
    # where a data set lies on the machine that measured is nobody else's
    shown = [item if not item.startswith("data.path=") else "data.path=DATA" for item in overrides]
    return {
        "benchmark": "whole_run_speed",
        "config": config.name,
        "set": shown,
        "commits": commits,
        "pairs": list(pairs),
        "ratio": {clock: _ratio(pairs, clock) for clock in ("wall_s", "cpu_s")},
        "accuracy": {name: [pair[name]["accuracy"] for pair in pairs] for name in commits},
        **provenance(),
    }


def _ratio(pairs: Sequence[dict[str, Any]], clock: str) -> dict[str, float]:
    each = [pair["other"][clock] / pair["this"][clock] for pair in pairs]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def _one_run(side: Side, seed: int, folder: Path) -> dict[str, Any]:
    """Seconds, accuracy and shares of one run over new silos."""
    silos, runs = folder / "silos", folder / "runs"
    sets = [*side.overrides, f"seed={seed}", f"silos.root={silos}", f"output.root={runs}", "output.name=run"]
    words = [word for item in sets for word in ("--set", item)]
    _spent(side, ["teachers", str(side.config), *words])
    wall, cpu = _spent(side, ["run", str(side.config), "--local", *words])
    result = json.loads((runs / "run/result.json").read_text(encoding="utf-8"))
    spans = [span for span in read_timeline(runs / "run/timeline.jsonl") if span.what != QUERY]
    by_part: dict[str, float] = {}
    for span in spans:
        by_part[span.what] = by_part.get(span.what, 0.0) + span.seconds
    total = result["seconds"]["total"]
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "accuracy": result["student"]["accuracy"],
        "seconds": {name: round(seconds, 2) for name, seconds in by_part.items()},
        "total_s": total,
        "share_outside": round(1 - sum(by_part.get(name, 0.0) for name in _FITTING) / total, 4),
    }


def _spent(side: Side, words: Sequence[str]) -> tuple[float, float]:
    """Seconds of the wall's clock and of the CPU that one command takes, by the side's own code."""
    environment = {**os.environ, "PYTHONPATH": str(side.root)}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*_COMMAND, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{side.label}: fedcpsc {words[0]} ended with {process.returncode}: {said[-2000:]}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def main() -> int:
    """Parses, measures, writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mnist.yaml"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--against", required=True, help="revision of the other side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("whole_run_speed.json"))
    given = parser.parse_args()
    row = measure(given.config, given.set, given.against, given.repeats, given.out)
    print(json.dumps({key: row[key] for key in ("ratio", "accuracy")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
