"""A run's folder before the run: free, to be resumed, or to be moved aside. What was paid for is never just deleted."""

from __future__ import annotations

import json
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

from fedcpsc.errors import RunError, explain

__all__ = ["Existing", "claim", "finished"]


class Existing(Enum):
    """What to do with a run that lies there already."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


def claim(run_dir: Path, existing: Existing) -> bool:
    """Makes the folder ready; returns whether a run is to be resumed in it.

    `OVERWRITE` moves the earlier run to `<name>.previous`, and so deletes only the one before that.

    Raises:
        RunError: it holds a run and `existing` is REFUSE.
    """
    if not (run_dir / "config.yaml").exists():
        return False
    if existing is Existing.REFUSE:
        state = "a finished run" if finished(run_dir) else "an unfinished run"
        remedy = "go on with --resume, start anew with --overwrite, or give the new run a --name"
        raise RunError(explain("run", str(run_dir), f"holds {state} already", remedy))
    if existing is Existing.RESUME:
        return True
    previous = run_dir.with_name(f"{run_dir.name}.previous")
    if previous.exists():
        shutil.rmtree(previous)
    run_dir.rename(previous)
    return False


def finished(run_dir: Path) -> dict[str, Any] | None:
    """The result of a run that has ended well, else None."""
    result = run_dir / "result.json"
    if not result.exists():
        return None
    read: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return read
