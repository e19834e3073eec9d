# SPDX-License-Identifier: Apache-2.0
"""One measurement from plan to files: bench.json and bench.png."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from fedcpsc.bench.bench_plot import save_picture
from fedcpsc.bench.curve import measure_curves
from fedcpsc.bench.results import BenchResult, Ready, SideFacts
from fedcpsc.bench.sides import BenchPlan, Side, check_sides, differences, opened_sides
from fedcpsc.bench.throughput import Tell, clock_of, measure_stages
from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.provenance import versions

__all__ = ["run_bench"]


def run_bench(plan: BenchPlan, out: Path, tell: Tell) -> BenchResult:
    """Measures, writes `bench.json` and `bench.png` into `out`, and returns what the JSON says.

    Args:
        tell: function called with the share done, in [0, 1], and what is being done.

    Raises:
        ConfigError: the plan, a configuration or a revision is wrong.
        FedcpscError: a side cannot be measured, or `out` not be written.
    """
    plan.check()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(explain("--out", str(out), f"cannot be made ({error.strerror})", "give another")) from error
    half = 0.5 if plan.curve else 1.0
    with opened_sides(plan) as sides:
        check_sides(plan, sides)
        rows, said = measure_stages(plan, sides, lambda share, text: tell(half * share, text))
        curves = measure_curves(plan, sides, lambda share, text: tell(0.5 + share / 2, text)) if plan.curve else None
        bench: BenchResult = {
            "sides": {side.name: _described(side, said[side.name]) for side in sides},
            "differs": _differing([said[side.name] for side in sides]),
            "clock": clock_of(said),
            "steps": plan.steps,
            "repeats": plan.repeats,
            "throughput": rows,
            "curve": curves,
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
            "versions": versions(),
            "script_commit": sides[0].commit,
        }
    write_whole(out / "bench.json", json.dumps(bench, indent=1) + "\n")
    save_picture(out / "bench.png", bench)
    return bench


def _differing(said: list[Ready]) -> dict[str, list[Any]]:
    return differences(said[0]["values"], said[1]["values"]) if len(said) == 2 else {}


def _described(side: Side, said: Ready) -> SideFacts:
    return {
        "label": side.label,
        "config": side.config.name,
        "set": list(side.overrides),
        "commit": side.commit,
        "seed": said["values"]["seed"],
        "device": said["device"],
        "threads": said["threads"],
        "values": said["values"],
    }


def _processor() -> str:
    """The processor's model where Linux names it, else its kind."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
