# SPDX-License-Identifier: Apache-2.0
"""error.txt: what a run died of, for whoever started it and whoever looks at its folder later."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.runs.layout import ERROR_FILE

__all__ = ["forget_failure", "note_failure", "read_failure"]


def note_failure(run_dir: Path, error: BaseException) -> None:
    """Leaves class and message of the error in the run's folder, which is made."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / ERROR_FILE).write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")


def read_failure(run_dir: Path) -> str | None:
    """`<class>: <message>` of the error; None where none was noted."""
    try:
        return (run_dir / ERROR_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None


def forget_failure(run_dir: Path) -> None:
    """Of an attempt that is now gone on with."""
    (run_dir / ERROR_FILE).unlink(missing_ok=True)
