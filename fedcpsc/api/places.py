# SPDX-License-Identifier: Apache-2.0
"""Where a run of the Python API lies, and what becomes of the place."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.report.after_run import draw
from fedcpsc.runs.layout import CONFIG_FILE, ERROR_FILE, LOCK_FILE

__all__ = ["draw_report", "place_of_run"]


def draw_report(run_dir: Path) -> None:
    """Draws a finished run's page; whatever goes wrong is a warning: the run itself is done and paid for.

    Args:
        run_dir: folder of the run.
    """
    if sorry := draw(run_dir):
        warnings.warn(sorry, RuntimeWarning, stacklevel=3)


@contextmanager
def place_of_run(folder: str | os.PathLike[str] | None, *, paid: bool) -> Iterator[tuple[Path, Path | None]]:
    """The run's folder, and what is removed with the run; of a run that fails, what was paid for stays.

    Args:
        folder: folder of the run; None makes a temporary one.
        paid: whether silos are asked, so that there is something to keep.

    Raises:
        RunError: the folder holds something that is no run.
    """
    if folder is not None:
        where = Path(folder).absolute()
        if not paid and (where / CONFIG_FILE).exists():
            raise RunError(explain("folder", str(where), "holds a run already", "name another folder"))
        left = {LOCK_FILE, ERROR_FILE}
        there = sorted(path.name for path in where.iterdir() if path.name not in left) if where.is_dir() else []
        if (there and CONFIG_FILE not in there) or where.is_file():
            shown = f"holds {', '.join(there[:3])}, and no run" if there else "is a file"
            raise RunError(explain("folder", str(where), shown, "name a new or empty folder"))
        yield where, None
        return
    base = Path(tempfile.mkdtemp(prefix="fedcpsc-run-"))
    where = base / "run"
    try:
        yield where, base
    except BaseException as error:
        if paid and (where / CONFIG_FILE).exists():
            error.add_note(f"what was answered lies in {where}: distill(..., folder={str(where)!r}, existing='resume')")
        else:
            shutil.rmtree(base, ignore_errors=True)
        raise
