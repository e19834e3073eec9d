# SPDX-License-Identifier: Apache-2.0
"""Answers a second of a gatekeeper here and at an earlier commit: the same queries, by turns, compared byte by byte.

    python -m benchmarks.gatekeeper_speed --against 24fd8f5 --set data.path=DATA/mnist \\
        --out benchmarks/results/gatekeeper_speed.json

Each side is a process over its own source tree, with one silo that this tree made: a query comes as bytes, is checked,
charged, answered and stored in the ledger, and goes back as bytes. Both sides' answers are hashed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.record import provenance
from fedcpsc.bench.sides import BenchPlan, Side, opened_sides

_QUICK_SILO = ("silos.count=1", "silos.partition.kind=iid", "silos.policy.answers=10000000", "data.train_limit=3000")
_CHILD = """
import hashlib, json, sys, time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from fedcpsc.config import load_config
from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.messages import AnswerForm, Query

def first(*names):  # packages have moved between revisions
    return import_module(next(n for n in names if find_spec(n.rpartition(".")[0]) and find_spec(n)))

config_path, sets, folder, batch = json.loads(sys.stdin.readline())
make = first("fedcpsc.silos.make", "fedcpsc.gatekeeper.silos").make_silos
opening = first("fedcpsc.gatekeeper.opening", "fedcpsc.gatekeeper.gatekeeper").open_gatekeeper
make(load_config(config_path, sets), Path(folder))
gatekeeper = opening(Path(folder) / "0")
random = np.random.default_rng(0)
print(json.dumps("ready"), flush=True)
for number, _ in enumerate(sys.stdin):
    images = random.integers(0, 256, (batch, *gatekeeper.teacher.image_shape), dtype=np.uint8)
    query = to_bytes(Query(f"{number:032x}", AnswerForm.PROBABILITIES, images))
    wall, cpu = time.perf_counter(), time.process_time()
    answer = gatekeeper.answer(from_bytes(query))
    to_bytes(answer)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**spent, "sha256": hashlib.sha256(answer.values.tobytes()).hexdigest()}), flush=True)
"""


def measure(config: Path, overrides: Sequence[str], against: str, batch: int, repeats: int) -> dict[str, Any]:
    """Times `repeats` queries of `batch` images at each side's gatekeeper, for answers of 8 and of 32 bits.

    Args:
        config: YAML file of a run whose teacher answers.
        overrides: `a.b=c` items of both sides.
        against: revision of the other side.
        batch: number of images in a query, >= 1.
        repeats: number of queries, >= 1; two more warm up.
    """
    forms = {}
    for bits in (8, 32):
        plan = BenchPlan(config, (*_QUICK_SILO, *overrides, f"silos.policy.bits={bits}"), against_commit=against)
        with opened_sides(plan) as sides:
            forms[f"{bits} bits"] = _by_turns(sides, batch, repeats)
            commits = {side.name: side.commit for side in sides}
    return {"benchmark": "gatekeeper_speed", "batch": batch, "commits": commits, "forms": forms, **provenance()}


def _by_turns(sides: Sequence[Side], batch: int, repeats: int) -> dict[str, Any]:
    with ExitStack() as stack:
        children = {}
        for side in sides:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedcpsc-gate-"))
            child = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", _CHILD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(side.root)},
                )
            )
            _ask(child, [str(side.config), list(side.overrides), folder, batch])
            children[side.name] = child
        said: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
        for number in range(repeats + 2):
            for name in children if number % 2 == 0 else reversed(children):
                said[name].append(_ask(children[name], "go"))
        for child in children.values():
            assert child.stdin is not None
            child.stdin.close()
    figures: dict[str, Any] = {
        "same_bytes": all(a["sha256"] == b["sha256"] for a, b in zip(*said.values(), strict=True))
    }
    for clock in ("wall_s", "cpu_s"):
        timed = {name: [one[clock] for one in each[2:]] for name, each in said.items()}
        ratios = [other / this for this, other in zip(timed["this"], timed["other"], strict=True)]
        figures[clock] = {
            "answers_per_second": {name: round(batch / statistics.median(each), 1) for name, each in timed.items()},
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return figures


def _ask(child: subprocess.Popen[str], message: object) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a gatekeeper's process ended with {child.wait()}; its error stands above")
    return json.loads(line)


def main() -> int:
    """Parses, measures, writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mnist.yaml"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--against", required=True, help="revision of the other side")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("gatekeeper_speed.json"))
    given = parser.parse_args()
    row = measure(given.config, given.set, given.against, given.batch, given.repeats)
    given.out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row["forms"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
