"""Follows a run's `metrics.jsonl` while it grows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["MetricsTail", "OnLine", "following"]

OnLine: TypeAlias = Callable[[dict[str, Any]], None]


class MetricsTail:
    """Reads the lines that were added since the last look; a line still being written waits for the next one.

    Args:
        path: may not exist yet; what it holds already is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

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


@contextmanager
def following(path: Path, on_line: OnLine, every_s: float = 0.5) -> Iterator[None]:
    """Calls `on_line` with each line that is added to `path` inside the block, from another thread."""
    tail = MetricsTail(path)
    done = threading.Event()

    def follow() -> None:
        last = False
        while not last:
            last = done.wait(every_s)
            for line in tail.read():
                on_line(line)

    thread = threading.Thread(target=follow, name="fedcpsc-tail", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
