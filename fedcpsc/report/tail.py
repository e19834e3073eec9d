"""Follows a run's `metrics.jsonl` while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["MetricsTail"]


class MetricsTail:
    """Reads the lines that were added since the last look; a line still being written waits for the next one.

    Args:
        path: may not exist yet.
        skip: leave out what is there already.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if skip and path.exists() else 0

    def read(self) -> list[dict[str, Any]]:
        """The new complete lines, oldest first."""
        if not self._path.exists():
            return []
        if self._path.stat().st_size < self._offset:  # the run began the file anew
            self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
