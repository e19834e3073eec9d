# SPDX-License-Identifier: Apache-2.0
"""Ledgers as version 1 of the file had them: WAL mode, the first six kinds of rows, no number in the file, no mark."""

import sqlite3
from pathlib import Path

from fedcpsc.ledger.chain import COLUMNS, schema
from fedcpsc.ledger.ledger import Charge, Ledger

OLD_NAME = "ds-" + "0" * 64


def make_old_ledger(path: Path, answers: int = 100, charged: int = 10) -> None:
    """One query answered, one refused; the rows are hashed as they were then, which has not changed."""
    newer = path.with_name("newer.sqlite")
    ledger = Ledger.create(newer, OLD_NAME, answers)
    ledger.reserve("a", "p", Charge(charged))
    ledger.store("a", b"reply")
    ledger.reserve("b", "p", Charge(answers + 1))
    ledger.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        for statement in schema(1):
            raw.execute(statement)
        raw.execute("ATTACH ? AS newer", (str(newer),))
        raw.execute(f"INSERT INTO events SELECT {', '.join(COLUMNS)} FROM newer.events ORDER BY seq")
        raw.execute("INSERT INTO replies SELECT * FROM newer.replies")
    raw.close()
    for name in ("newer.sqlite", "newer.sqlite-journal", "newer.mark"):
        path.with_name(name).unlink(missing_ok=True)
