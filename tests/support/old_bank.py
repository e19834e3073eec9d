# SPDX-License-Identifier: Apache-2.0
"""Answer banks as earlier versions wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fedcpsc.runs.bank_sums import event_sum
from fedcpsc.runs.bank_view import read_bank


def without_sums(folder: Path) -> None:
    """Takes the checksums out of the journal in a bank's folder, as versions before checksums wrote it."""
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "crc32"}) + "\n" for line in lines))


def without_origins(folder: Path) -> None:
    """Takes the images' origins out of a bank's folder, as versions before them wrote it, with its checksums."""
    view, journal = read_bank(folder), folder / "journal.jsonl"
    head, *lines = [json.loads(line) for line in journal.read_text().splitlines()]
    del head["origins"]
    head["crc32"] = event_sum({k: v for k, v in head.items() if k != "crc32"})
    for line in lines:
        if "batch" in line:
            rows = slice(line["first"], line["first"] + line["count"])
            data = [np.ascontiguousarray(part[rows]).tobytes() for part in (view.images, view.pseudo_labels)]
            line["crc32"] = event_sum({k: v for k, v in line.items() if k != "crc32"}, data)
    journal.write_text("".join(json.dumps(line) + "\n" for line in (head, *lines)))
    (folder / "origins.u8").unlink()
