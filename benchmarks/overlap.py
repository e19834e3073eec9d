# SPDX-License-Identifier: Apache-2.0
"""The same run with rounds that overlap and without, over silos that take seconds for a message: who waits, and at what
cost in accuracy.

    python -m benchmarks.overlap --out benchmarks/results/overlap.json

The silos' gatekeepers are in this process, behind a transport that delays every reply as a Flower deployment does: a
SuperNode starts a process for each message, serves one at a time, and sleeps between two looks for more. The server's
work counts in processor seconds and the delays are added to them, not slept through: other load on the machine, which
would hide the waiting behind slow work, changes nothing. Accuracy is measured on images kept from every silo
(`data.validation`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import provenance
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport, Reply, SiloId
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.messages import Query, QueryTarget
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE
from fedcpsc.silos.make import make_silos

MODES = {
    "each round waited for": ["queries.ahead=0", "queries.in_flight=1", "queries.waiting_goal=1"],
    "overlapping": ["queries.ahead=2", "queries.in_flight=2", "queries.waiting_goal=0.05"],
}


class Clock:
    """Seconds of work, and of waiting that is skipped.

    Args:
        work_s: a clock of the work.
    """

    def __init__(self, work_s: Callable[[], float] = time.process_time) -> None:
        self._work_s = work_s
        self._skipped_s = 0.0

    def __call__(self) -> float:
        return self._work_s() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """Sets the clock forward."""
        self._skipped_s += seconds


class SlowTeachers(LocalTransport):
    """Gatekeepers of this process that seem far away. Each serves one query after the other.

    Args:
        clock: is set forward where a reply is waited for.
        needs_s: seconds that a silo needs for its n-th query, from 0; infinite: it never answers.
        idle_s: how much longer it takes where the silo had nothing to do.
    """

    def __init__(
        self,
        targets: Sequence[QueryTarget],
        clock: Clock,
        needs_s: Callable[[SiloId, int], float],
        idle_s: float = 0.0,
    ) -> None:
        super().__init__(targets)
        self._clock = clock
        self._needs_s = needs_s
        self._idle_s = idle_s
        self._asked: dict[SiloId, int] = {}
        self._free: dict[SiloId, float] = {}
        self._under_way: list[tuple[float, float, SiloId, Query]] = []  # due, pushed, ...
        self.most_in_flight = 0

    def send(self, queries: Mapping[SiloId, Query]) -> None:
        """Sets when each reply will come."""
        now = self._clock()
        for silo, query in queries.items():
            number = self._asked[silo] = self._asked.get(silo, -1) + 1
            free = self._free.get(silo, -math.inf)
            due = self._free[silo] = max(now, free) + self._needs_s(silo, number) + (self._idle_s if free < now else 0)
            self._under_way.append((due, now, silo, query))
            self.most_in_flight = max(self.most_in_flight, sum(item[2] == silo for item in self._under_way))

    def receive(self, timeout_s: float) -> list[Reply]:
        """The replies that are due, in that order."""
        first = min((item[0] for item in self._under_way), default=math.inf)
        self._clock.skip(min(max(first - self._clock(), 0.0), timeout_s))
        now = self._clock() + 1e-9  # sums of seconds round
        due = sorted((item for item in self._under_way if item[0] <= now), key=lambda item: item[0])
        self._under_way = [item for item in self._under_way if item[0] > now]
        replies = []
        for _, pushed, silo, query in due:
            super().send({silo: query})
            replies += [Reply(silo, reply.content, self._clock() - pushed) for reply in super().receive(0)]
        return replies


def measure(config: RunConfig, silos: Path, needs_s: float, idle_s: float) -> dict[str, Any]:
    """One run, in a folder of its own that is thrown away."""
    gatekeepers = [open_gatekeeper(silos / str(index)) for index in range(config.silos.count)]
    clock = Clock()
    teachers = SlowTeachers(gatekeepers, clock, lambda silo, number: needs_s, idle_s)
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = distill(config, teachers, Path(folder) / "run", evaluation=evaluation_images(config), clock=clock)
            journal = (Path(folder) / "run" / BANK_FOLDER / JOURNAL_FILE).read_bytes().splitlines()
    finally:
        teachers.close()
        for gatekeeper in gatekeepers:
            gatekeeper.close()
    seconds = result["seconds"]
    return {
        "student": result["student"]["accuracy"],
        "wall_s": seconds["total"],
        "waiting_s": seconds["waiting"],
        "waiting_share": seconds["waiting_share"],
        "waiting_share_after_first_round": seconds["waiting_share_after_first_round"],
        "queries": sum('"batch"' in line for line in journal),
        "answers": result["answers_per_silo"],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the spread of the accuracies."""
    means = {key: round(statistics.mean(run[key] for run in runs), 4) for key in runs[0]}
    accuracies = [100 * run["student"] for run in runs]
    spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    worst = max(run["waiting_share_after_first_round"] for run in runs)
    return means | {
        "student": round(statistics.mean(accuracies), 2),
        "student_std": round(spread, 2),
        "worst_waiting_share_after_first_round": worst,
        "each": runs,
    }


def main() -> int:
    """Measures, prints and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.yaml")
    parser.add_argument("--set", action="append", default=["data.validation=250"])
    parser.add_argument("--needs", type=float, default=4.0, help="seconds a busy silo needs for a query")
    parser.add_argument("--idle", type=float, default=1.5, help="seconds more where the silo had nothing to do")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--silos", default="", help="folder in which the teachers are kept for the next call")
    parser.add_argument("--out", default="overlap.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        row = compare(given, Path(given.silos or scratch))
    Path(given.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return 0


def compare(given: argparse.Namespace, silos: Path) -> dict[str, Any]:
    """All seeds in both modes."""
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for seed in given.seeds:
        own = silos / f"seed-{seed}"
        make_silos(load_config(given.config, [*given.set, f"seed={seed}"]), own)
        for mode, overrides in MODES.items():
            config = load_config(given.config, [*given.set, *overrides, f"seed={seed}"])
            runs[mode].append(measure(config, own, given.needs, given.idle))
            print(mode, seed, runs[mode][-1], flush=True)
    return {
        "benchmark": "overlap",
        "config": given.config,
        "set": given.set,
        "modes": MODES,
        "seeds": given.seeds,
        "silos": config.silos.count,
        "needs_s": given.needs,
        "idle_s": given.idle,
        "runs": {mode: summary(found) for mode, found in runs.items()},
        **provenance(),
    }


if __name__ == "__main__":
    sys.exit(main())
