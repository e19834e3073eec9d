# SPDX-License-Identifier: Apache-2.0
"""Result files read, and tables written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "read", "spread", "table"]

RESULTS = Path(__file__).resolve().parents[1] / "results"


def read(name: str) -> Any:
    """One result file's content; None where it has not been measured."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, or what says that there is none yet; `header` has the columns' names between bars."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    if not lines:
        return ["Not measured yet: the page names the command."]
    return [f"| {header} |", "|" + "---|" * len(header.split(" | ")), *lines]


def spread(mean: float, std: float) -> str:
    """As all figures over seeds are written."""
    return f"{mean:.1f} +- {std:.1f}"
