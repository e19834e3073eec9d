# SPDX-License-Identifier: Apache-2.0
"""The same small run with few silos and with many: does it end, and what does the server's memory do?

    python -m benchmarks.many_silos --out benchmarks/results/many_silos.json

Each run is a `fedcpsc run` of its own on the digits, dealt evenly: a hundred silos have some 13 images each, so their
teachers know next to nothing, which changes nothing about what the server holds. Through Flower the figure is of the
process that holds the server and Flower's simulation; with `--local` it holds the gatekeepers and teachers as well. It
is the peak of resident memory, pages of mapped files counted in, as result.json tells it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import provenance
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.runs.result import read_result

TRANSPORTS = {"one process (--local)": ["--local"], "Flower's simulation": []}


def one(config: str, overrides: list[str], silos: int, flags: list[str], limit_s: float) -> dict[str, Any]:
    """Makes the silos in a process of their own, then runs; returns what the run's result says."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"silos.count={silos}", f"silos.root={folder}/silos", f"output.root={folder}", "output.name=run"]
        given = [part for item in [*overrides, *own] for part in ("--set", item)]
        fedcpsc = [sys.executable, "-m", "fedcpsc.cli"]
        subprocess.run([*fedcpsc, "teachers", config, *given], check=True, capture_output=True, timeout=limit_s)
        begun = time.monotonic()
        subprocess.run([*fedcpsc, "run", config, *flags, *given], check=True, capture_output=True, timeout=limit_s)
        wall_s = time.monotonic() - begun
        result = read_result(Path(folder) / "run")
        page = (Path(folder) / "run" / REPORT_FILE).stat().st_size
    return {
        "silos": silos,
        "answered": sum(silo["answers"] for silo in result["silos"]),
        "left_early": sum(silo["stopped"] is not None for silo in result["silos"]),
        "peak_MiB": result["peak_memory_mib"],
        "run_s": result["seconds"]["total"],
        "wall_s": round(wall_s, 1),
        "report_MB": round(page / 1e6, 2),
    }


def main() -> int:
    """Measures one after the other and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/smoke.yaml")
    parser.add_argument("--set", action="append", default=["teachers.width=4", "teachers.epochs=2"])
    parser.add_argument("--silos", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--transport", choices=list(TRANSPORTS), nargs="+", default=list(TRANSPORTS))
    parser.add_argument("--limit-s", type=float, default=1200, help="of each command; what takes longer has failed")
    parser.add_argument("--out", default="many_silos.json")
    arguments = parser.parse_args()
    rows = [
        {"transport": name, **one(arguments.config, arguments.set, silos, TRANSPORTS[name], arguments.limit_s)}
        for name in arguments.transport
        for silos in arguments.silos
    ]
    about = {"benchmark": "many_silos", "config": arguments.config, "set": arguments.set}
    report = {**about, "rows": rows, **provenance()}
    Path(arguments.out).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
