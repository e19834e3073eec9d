# SPDX-License-Identifier: Apache-2.0
"""What the ledger takes in each of SQLite's journal modes: a charge and a stored reply, a batch of 1,000 answers.

    python -m benchmarks.ledger_journal --folder . --out benchmarks/results/ledger_journal.json

The modes take turns, batch by batch, so that whatever else the disk does meets all of them alike. Each has its
high-water mark, as by default. DELETE needs `synchronous=EXTRA` to be as durable as the others: without it a journal
whose removal was not yet on the disk comes back after a power failure, and takes the last charge with it. WAL is what
earlier versions used; a copy of its one file may lack the newest charges, whatever it costs.
`disk_ms` is one write of 4 kB in place and its synchronisation on the same disk, also in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import provenance
from fedcpsc.ledger import file as ledger_file
from fedcpsc.ledger.ledger import Charge, Ledger

MODES = (("PERSIST", "FULL"), ("TRUNCATE", "FULL"), ("DELETE", "EXTRA"), ("WAL", "FULL"))
REPLY_BYTES = 10_000  # 1,000 answers of ten classes in 8 bits
_POPULATION = "benchmark"
_CHOSEN = f"{ledger_file.JOURNAL_MODE} {ledger_file.SYNCHRONOUS}"


def measure(folder: Path, batch: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of each mode.

    Args:
        folder: folder on the disk that is measured.
        batch: answers charged at a time.
        repeats: batches in each mode.
    """
    with tempfile.TemporaryDirectory(dir=folder) as base:
        spent: dict[str, list[tuple[float, float]]] = {}
        ledgers = {}
        for journal, synchronous in MODES:
            ledger_file.JOURNAL_MODE, ledger_file.SYNCHRONOUS = journal, synchronous
            ledgers[f"{journal} {synchronous}"] = Ledger.create(Path(base) / f"{journal}.sqlite", _POPULATION, 10**12)
        plain, disk = os.open(Path(base) / "plain", os.O_CREAT | os.O_WRONLY), []
        os.write(plain, bytes(4096))
        os.fsync(plain)
        for number in range(repeats):
            begun = time.perf_counter()
            os.pwrite(plain, os.urandom(4096), 0)
            os.fdatasync(plain)
            disk.append(time.perf_counter() - begun)
            for name, ledger in ledgers.items():
                spent.setdefault(name, []).append(_batch(ledger, str(number), batch))
        os.close(plain)
        for ledger in ledgers.values():
            ledger.verify()
            ledger.close()
    rows = [
        {
            "mode": name,
            "charge_ms": _figures([charge for charge, _ in times]),
            "store_ms": _figures([store for _, store in times]),
            "both_ms": _figures([charge + store for charge, store in times]),
        }
        for name, times in spent.items()
    ]
    return {"chosen": _CHOSEN, "disk_ms": _figures(disk), "reply_bytes": REPLY_BYTES, "modes": rows}


def _batch(ledger: Ledger, name: str, answers: int) -> tuple[float, float]:
    reply = os.urandom(REPLY_BYTES)
    begun = time.perf_counter()
    ledger.reserve(name, "0" * 64, Charge(answers, mechanism="none", model="0" * 64), run="benchmark")
    charged = time.perf_counter()
    ledger.store(name, reply)
    return charged - begun, time.perf_counter() - charged


def _figures(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"median": round(1000 * statistics.median(seconds), 2), "p99": round(1000 * cuts[98], 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is measured")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--out", default="ledger_journal.json")
    given = parser.parse_args()
    row = {
        "benchmark": "ledger_journal",
        "batch": given.batch,
        "repeats": given.repeats,
        **measure(given.folder, given.batch, given.repeats),
        **provenance(),
    }
    Path(given.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
