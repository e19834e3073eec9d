# SPDX-License-Identifier: Apache-2.0
"""How much memory something takes while it runs, and how much this process may still take."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import psutil

from fedcpsc.provenance import peak_memory_mib

__all__ = ["PeakMemory", "free_memory", "resident_memory"]

_LOOK_S = 0.002
_OWN_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class PeakMemory:
    """Measures while its block runs; reads counters alone, and resets none that others read.

    What is resident is looked at every few milliseconds. Where the process's own high-water mark rises, as Linux keeps
    it, its new value is the peak, which no look can miss.

    Args:
        before: number of resident bytes to count from; None: those at the block's begin.

    Attributes:
        extra: most bytes that were resident beyond `before`, >= 0; known at the block's end.
    """

    def __init__(self, before: int | None = None) -> None:
        self.extra = 0
        self._from = before
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._seen = 0
        self._before = self._marked = 0
        self._thread = threading.Thread(target=self._look, name="fedcpsc-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._seen = self._process.memory_info().rss
        self._before = self._seen if self._from is None else self._from
        self._marked = _high_water_mark()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        mark = _high_water_mark()
        self._seen = max(self._seen, self._process.memory_info().rss, mark if mark > self._marked else 0)
        self.extra = max(0, self._seen - self._before)

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._seen = max(self._seen, self._process.memory_info().rss)


def resident_memory() -> int:
    """Bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


def free_memory() -> int:
    """Bytes that this process may still take without swapping: the machine's, or its control group's where fewer."""
    return min(psutil.virtual_memory().available, *(_left_in(group) for group in _groups()))


def _high_water_mark() -> int:
    """Most bytes that were ever resident; 0 where the system does not say."""
    return int((peak_memory_mib() or 0) * 2**20)


def _groups() -> list[Path]:
    """Folders of this process's control group (version 2) and of those around it, as far as a container sees them."""
    try:
        inside = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        inside = "/"
    own = _GROUPS / inside.strip("/")
    return [own, *(folder for folder in own.parents if folder.is_relative_to(_GROUPS)), _GROUPS]


def _left_in(group: Path) -> int:
    """Bytes that a control group may still take; a very large number where it has no limit."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text().strip()
        cached = next(
            line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("inactive_file ")
        )
        return max(0, int(limit) - int(used) + int(cached.split()[1]))
    except (OSError, ValueError, StopIteration):
        return 2**63
