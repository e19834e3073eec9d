# SPDX-License-Identifier: Apache-2.0
"""What every figure carries, how rows are merged into a file, and the command line of benchmarks of one gatekeeper."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedcpsc.models.precision import own_precision
from fedcpsc.provenance import commit, versions

# one silo whose teacher has hardly been trained: what it knows changes nothing about its speed
_ONE_QUICK_SILO = [
    "silos.count=1",
    "silos.partition.kind=iid",
    "silos.policy.answers=10000000",
    "teachers.epochs=1",
    "data.train_limit=3000",
]


def provenance() -> dict[str, Any]:
    """Versions, commit and machine of a measurement."""
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "passes": own_precision(torch.device("cpu")),  # where the configuration names no format
        },
    }


def merge(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes `rows` into the file, each in place of an older row of its setting with as many answers."""
    older = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    anew = {(row["setting"], row.get("answers")) for row in rows}
    kept = [row for row in older if (row["setting"], row.get("answers")) not in anew] + rows
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def gatekeeper_command(name: str, about: str, measure: Callable[[str, list[str], int, int], dict[str, Any]]) -> int:
    """Parses, measures, writes one JSON file.

    Args:
        name: of the benchmark and its file.
        about: for `--help`.
        measure: (configuration, overrides, images a batch, repeats) -> figures.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/mnist.yaml")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", default=f"{name}.json")
    given = parser.parse_args()
    overrides = [*_ONE_QUICK_SILO, *given.set]
    row = {
        "benchmark": name,
        "config": given.config,
        "set": overrides,
        "batch": given.batch,
        "repeats": given.repeats,
        **measure(given.config, overrides, given.batch, given.repeats),
        **provenance(),
    }
    Path(given.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row, indent=1))
    return 0
