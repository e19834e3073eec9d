# SPDX-License-Identifier: Apache-2.0
"""What one GPU shows in ten minutes: the suite's GPU tests, speed, waits and a profile, in one JSON.

    benchmarks/gpu_check.sh --out gpu_check.json
    benchmarks/gpu_check.sh --cpu --out gpu_check.json    # small, on a CPU: to see that its parts run

The file is written after each part, so that a run that is cut short leaves what it has. A part that fails leaves its
error and the others go on; the exit status is then 1. Parts for which no time is left are named as such.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import provenance
from benchmarks.white_box_speed import measure as white_box_against_port
from fedcpsc.bench.probe import Bench, Work, timed
from fedcpsc.config import RunConfig, load_config
from fedcpsc.distillation.data_parallel import Networks
from fedcpsc.distillation.steps import fit
from fedcpsc.models.arithmetic import gpu_arithmetic

ROOT = Path(__file__).resolve().parents[1]
FITS = {  # name: precision, tf32, compiled
    "float32": ("float32", False, False),
    "tf32": ("float32", True, False),
    "bfloat16": ("bfloat16", False, False),
    "bfloat16, compiled": ("bfloat16", False, True),
}


class Check:
    """The parts, each of which returns what the JSON holds of it.

    Args:
        device: `cuda`, or `cpu` to see that the parts run.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.small = device == "cpu"

    def config(self, side: int, **changes: Any) -> RunConfig:
        """The configuration for CIFAR-10, of so many answers that a round is as one of a usual run."""
        asked = ["queries.answers_per_silo=40", "queries.rounds=2", "student.width=4", "student.steps_per_round=2"]
        overrides = [f"runtime.device={self.device.type}", f"data.image_size={side}", *(asked if self.small else [])]
        overrides += [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
        return load_config(ROOT / "configs/cifar10.yaml", overrides)

    def tests(self) -> dict[str, Any]:
        """The suite's GPU tests."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "tests.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", f"--junitxml={report}"]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | ({"FEDCPSC_GPU_TESTS": "cpu"} if self.small else {}),
                capture_output=True,
                text=True,
                check=False,
            )
            cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest wrote it
            failed, count, skipped = [], 0, 0
            for case in cases:
                count += 1
                skipped += case.find("skipped") is not None
                if any(case.find(kind) is not None for kind in ("failure", "error")):
                    failed.append(case.get("name"))
        if failed:
            print(done.stdout[-8000:], file=sys.stderr)
        return {"tests": count, "skipped": skipped, "failed": failed}

    def white_box(self) -> list[dict[str, Any]]:
        """A white-box round against a port of the authors' loop."""
        batch, rounds = (4, 1) if self.small else (128, 9)
        with gpu_arithmetic(self.device):
            return white_box_against_port(batch, rounds, 1, self.device.type)

    def rounds(self, side: int) -> dict[str, Any]:
        """An inference-only round of images of side x side, part by part, and the fit in each number format."""
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder, gpu_arithmetic(self.device):
            bench = Bench(self.config(side), 10, (3, side, side), 2 if self.small else 50, Path(folder))
            for name in ("prior", "generator", "selection", "student", "round"):
                work: Work = getattr(bench, name)()
                found[name] = {"images": work.images, "units": work.units, "seconds": self.seconds(work)}
        found["fits"] = {name: self.fit(side, *how) for name, how in FITS.items() if not (self.small and how[2])}
        if self.device.type == "cuda":
            found["gpu_peak_MiB"] = torch.cuda.max_memory_allocated() / 2**20
        return found

    def fit(self, side: int, precision: str, tf32: bool, compiled: bool) -> dict[str, Any]:
        """Steps of the student alone."""
        with tempfile.TemporaryDirectory() as folder, gpu_arithmetic(self.device, tf32=tf32):
            config = self.config(side, student__precision=precision)
            bench = Bench(config, 10, (3, side, side), 2 if self.small else 100, Path(folder))
            reader, pool = bench._bank()
            networks, student = Networks(compiled=compiled), bench.members[0]

            def steps() -> list[torch.Tensor]:
                return [fit(student, config.student, reader, pool, pool[:0], bench.steps, 1, networks=networks)]

            work = Work(steps, bench.steps, bench.steps * config.student.batch_size)
            begun = time.perf_counter()
            timed(work.call, self.device.type == "cuda")
            first = time.perf_counter() - begun
            return {"first_s": round(first, 3), "seconds": self.seconds(work), "steps": bench.steps}

    def profile(self) -> dict[str, Any]:
        """Where a round of 32x32 images spends its time, and how often it waits for the GPU."""
        activities = [ProfilerActivity.CPU, *([] if self.small else [ProfilerActivity.CUDA])]
        with tempfile.TemporaryDirectory() as folder, gpu_arithmetic(self.device):
            work = Bench(self.config(32), 10, (3, 32, 32), 2, Path(folder)).round()
            timed(work.call, not self.small)
            with profile(activities=activities) as seen:
                wall = timed(work.call, not self.small)["wall_s"]
        events = seen.key_averages()
        name = "self_cpu_time_total" if self.small else "self_device_time_total"
        own = sorted(events, key=lambda event: getattr(event, name), reverse=True)
        waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
        return {
            "wall_s": wall,
            "busy_s": sum(getattr(event, name) for event in own) / 1e6,
            "most": [{"what": event.key, "calls": event.count, "s": getattr(event, name) / 1e6} for event in own[:20]],
            "waits": {event.key: event.count for event in events if event.key in waits},
            "launches": sum(event.count for event in events if event.key == "cudaLaunchKernel"),
        }

    def seconds(self, work: Work) -> dict[str, float]:
        """Wall-clock seconds of a call: median and range of some, after one to warm up."""
        on_gpu, calls = self.device.type == "cuda", 1 if self.small else 5
        timed(work.call, on_gpu)
        walls = [timed(work.call, on_gpu)["wall_s"] for _ in range(calls)]
        return {"median": statistics.median(walls), "least": min(walls), "most": max(walls)}


def main() -> int:
    """Runs the parts and writes one JSON file; 1 where a part or a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="small, on the CPU: to see that the parts run")
    parser.add_argument("--only", action="append", help="name of a part, where not all are wanted; may be repeated")
    parser.add_argument("--minutes", type=float, default=10.0, help="time after which no further part begins")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    given = parser.parse_args()
    if not (given.cpu or torch.cuda.is_available()):
        print("torch sees no GPU; --cpu tries the parts on a CPU", file=sys.stderr)
        return 2
    check, begun = Check("cpu" if given.cpu else "cuda"), time.monotonic()
    name = "CPU, to see that the parts run: no figure of speed" if given.cpu else torch.cuda.get_device_name()
    found: dict[str, Any] = {"device": name, **provenance(), "parts": {}}
    parts: dict[str, Callable[[], Any]] = {
        "tests": check.tests,
        "white_box": check.white_box,
        "round_32": lambda: check.rounds(32),
        "round_64": lambda: check.rounds(64),
        "profile": check.profile,
    }
    failed, unknown = False, sorted(set(given.only or ()) - set(parts))
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}: there are {', '.join(parts)}")
    for part, work in parts.items():
        if given.only and part not in given.only:
            continue
        started = time.monotonic()
        entry: dict[str, Any] = {"error": "no time was left"}
        if started - begun < 60 * given.minutes:
            try:
                entry = {"found": work()}
            except Exception as error:  # the other parts are worth as much
                entry = {"error": f"{type(error).__name__}: {error}"}
        failed |= "error" in entry or (part == "tests" and bool(entry["found"]["failed"]))
        found["parts"][part] = entry | {"seconds": round(time.monotonic() - started, 1)}
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{part}: {entry.get('error', 'done')}, {found['parts'][part]['seconds']} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
