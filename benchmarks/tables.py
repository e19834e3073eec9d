"""Writes the README's tables from the JSON under `benchmarks/results/`.

python -m benchmarks.tables            # rewrite
python -m benchmarks.tables --check    # exit 1 where the README is out of date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    """One result file's content; None where it has not been measured."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def accuracy() -> list[str]:
    """Accuracy per answer."""
    lines = [
        "| setting | silos | answers | best single teacher | ensemble | **student** | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read("accuracy_per_answer.json") or []:
        lines.append(
            f"| {row['setting']} | {row['silos']} | {row['answers']:,} | {row['teacher']:.1f} "
            f"| {row['ensemble']:.1f} | **{row['mean']:.1f} +- {row['std']:.1f}** | {len(row['seeds'])} |"
        )
    return lines


def overheads() -> list[str]:
    """What the machinery costs."""
    lines = ["| what | figure |", "|---|---|"]
    gate = read("gatekeeper_overhead.json")
    if gate:
        lines.append(
            f"| gatekeeper + protocol over bare teacher inference, {gate['batch']:,} images of "
            f"{'x'.join(map(str, gate['image_shape'][1:]))} | {100 * (gate['ratio'] - 1):+.1f} % "
            f"({gate['added_ms']:.0f} ms a batch) |"
        )
    memory = read("bank_memory.json")
    if memory:
        for size in memory["sizes"]:
            lines.append(
                f"| server memory with {size['rows']:,} banked images ({size['disk_MiB']:.0f} MiB on disk) | "
                f"{size['anonymous_MiB']:.0f} MiB |"
            )
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {"accuracy": accuracy, "overheads": overheads}


def rewrite(text: str) -> str:
    """`text` with every `<!-- table:NAME -->` ... `<!-- end -->` filled anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, make=make: found[1] + "\n".join(make()) + "\n" + found[2], text)
    return text


def main() -> int:
    """Rewrites or checks README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = rewrite(before)
    if arguments.check:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
