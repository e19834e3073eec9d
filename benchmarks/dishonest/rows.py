# SPDX-License-Identifier: Apache-2.0
"""A result file that grows by rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Row", "Rows"]

Row: TypeAlias = dict[str, Any]


class Rows:
    """The rows of a result file, written anew at each change, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self._rows: dict[str, Row] = {self.key(row): row for row in rows}

    @staticmethod
    def key(row: Row) -> str:
        """What tells rows apart."""
        return " | ".join(str(row[part]) for part in ("what", "setting", "attack", "form", "liars"))

    def get(self, key: str) -> Row | None:
        """The row of a key; None where it has not been measured."""
        return self._rows.get(key)

    def put(self, row: Row) -> None:
        """Takes a row in and writes the file."""
        self._rows[self.key(row)] = row
        lines = ",\n".join(json.dumps(one) for one in self._rows.values())
        fresh = self._path.with_suffix(".partial")
        fresh.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        fresh.replace(self._path)
