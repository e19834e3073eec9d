# SPDX-License-Identifier: Apache-2.0
"""The page that every run leaves: drawn when the run is over, and never a reason why it fails.

The run is done and paid for by then, so whatever goes wrong here is said in a sentence and raises nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fedcpsc.runs.layout import REPORT_FILE, RESULT_FILE

__all__ = ["draw", "draw_apart", "is_drawn"]

_LONGEST_S = 300.0
_PACKAGE = Path(__file__).resolve().parent.parent


def draw(run_dir: Path) -> str | None:
    """Draws the page in this process.

    Args:
        run_dir: folder of the run.

    Returns:
        The reason why it could not be drawn, and what to do, in a sentence; None where it was.
    """
    try:
        from fedcpsc.report.page import write_report  # noqa: PLC0415 - brings matplotlib

        write_report(run_dir)
    except Exception as error:
        return _sorry(run_dir, f"{type(error).__name__}: {error}")
    return None


def draw_apart(run_dir: Path) -> str | None:
    """The same in a process of its own: for the ServerApp, in whose process Ray may live.

    Flower's copy of an app has source and no templates, so there the installed package draws.
    """
    command = [sys.executable, "-m", "fedcpsc.cli", "report", str(run_dir)]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=_LONGEST_S, check=False
        )
    except Exception as error:
        return _sorry(run_dir, type(error).__name__)
    if done.returncode == 0 and is_drawn(run_dir):
        return None
    return _sorry(run_dir, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def is_drawn(run_dir: Path) -> bool:
    """Whether the folder has a page that is not older than the run's result."""
    page, result = run_dir / REPORT_FILE, run_dir / RESULT_FILE
    return page.exists() and result.exists() and page.stat().st_mtime >= result.stat().st_mtime


def _environment() -> dict[str, str]:
    """Ours; without the way to this copy of the package, where it has no templates."""
    if (_PACKAGE / "report/templates/page.html.j2").exists():
        return dict(os.environ)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in paths if path and Path(path).resolve() != _PACKAGE.parent]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(others)}


def _sorry(run_dir: Path, why: str) -> str:
    return f"{REPORT_FILE} could not be drawn ({why}); the run is complete; try again with: fedcpsc report {run_dir}"
