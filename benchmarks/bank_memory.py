# SPDX-License-Identifier: Apache-2.0
"""The server's memory against the size of the bank: does it grow with the images on disk?

    python -m benchmarks.bank_memory --rows 20000 100000 --out benchmarks/results/bank_memory.json

For each size a process of its own fills a bank with MNIST-sized images and fits a student on it. Reported is the peak
of anonymous memory (what the process itself holds; the mapped file pages are the kernel's and can be taken back at any
time), beside the bank's bytes on disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHAPE, CLASSES, SILOS = (1, 28, 28), 10, 5


def one(rows: int) -> dict[str, Any]:
    """Fills, fits, and reads this process's own memory."""
    import numpy as np  # noqa: PLC0415 - each size is measured in a fresh process
    import torch  # noqa: PLC0415

    from fedcpsc.config import AggregationConfig, StudentConfig  # noqa: PLC0415
    from fedcpsc.distillation.steps import BankReader, fit, make_committee  # noqa: PLC0415
    from fedcpsc.distillation.targets import TargetKeeper  # noqa: PLC0415
    from fedcpsc.runs.answer_bank import AnswerBank  # noqa: PLC0415

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        bank = AnswerBank(Path(folder), SHAPE, CLASSES, [f"silo-{i}" for i in range(SILOS)])
        targets = TargetKeeper(bank, AggregationConfig(), None)
        for first in range(0, rows, 1000):
            count = min(1000, rows - first)
            images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
            batch = bank.add_batch(first // 1000, images, np.zeros(count, np.int64))
            for silo in bank.silos:
                bank.add_answers(batch.query_id, silo, rng.dirichlet(np.ones(CLASSES), count).astype(np.float32))
            targets.refresh()
        config = StudentConfig(width=8)
        (member, *_) = make_committee(config, CLASSES, SHAPE, 0, torch.device("cpu"))
        reader = BankReader(bank, torch.device("cpu"))
        fit(member, config, reader, bank.answered_rows(), np.zeros(0, np.int64), 200, 0)
        on_disk = sum(path.stat().st_size for path in Path(folder).iterdir())
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss")
    )
    return {
        "rows": rows,
        "disk_MiB": round(on_disk / 2**20, 1),
        "anonymous_MiB": round(int(status["RssAnon"].split()[0]) / 1024, 1),
    }


def main() -> int:
    """Measures each size in its own process and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--one", action="store_true", help="measure in this process (used by itself)")
    parser.add_argument("--out", default="bank_memory.json")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.rows[0])))
        return 0
    from benchmarks.record import provenance  # noqa: PLC0415

    sizes = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.bank_memory", "--one", "--rows", str(rows)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for rows in arguments.rows
    ]
    report = {"benchmark": "bank_memory", "image_shape": SHAPE, "silos": SILOS, "sizes": sizes, **provenance()}
    Path(arguments.out).write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
