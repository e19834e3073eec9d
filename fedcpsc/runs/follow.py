# SPDX-License-Identifier: Apache-2.0
"""Follows a run's `metrics.jsonl` while it grows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, cast

from fedcpsc.runs.layout import METRICS_FILE
from fedcpsc.runs.metrics import MetricsLine, upgrade_line
from fedcpsc.strict_json import parse_mapping

__all__ = ["MetricsTail", "OnLine", "following"]

OnLine: TypeAlias = Callable[[MetricsLine], None]


class MetricsTail:
    """Reads the lines that were added since the last look; a line still being written waits for the next one.

    Args:
        run_dir: folder of the run; what its metrics.jsonl holds already is left out, and it may not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / METRICS_FILE
        # half a line that a crash left is cut off when the run goes on
        self._offset = self._path.read_bytes().rfind(b"\n") + 1 if self._path.exists() else 0

    def read(self) -> list[MetricsLine]:
        """The new complete lines, oldest first. What is no line is left out: a display ends no run."""
        if not self._path.exists():
            return []
        if self._path.stat().st_size < self._offset:  # the run began the file anew
            self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_lines(whole))


def _lines(whole: bytes) -> Iterator[MetricsLine]:
    for line in whole.splitlines():
        with suppress(ValueError):
            yield cast(MetricsLine, upgrade_line(parse_mapping(line)))


@contextmanager
def following(run_dir: Path, on_line: OnLine, every_s: float = 0.5) -> Iterator[None]:
    """Calls `on_line` with each line that the run in `run_dir` adds inside the block, from another thread."""
    tail = MetricsTail(run_dir)
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
