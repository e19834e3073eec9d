# SPDX-License-Identifier: Apache-2.0
"""The process of one task: `python -P -m fedcpsc.sweep.worker`, told its job by a line of JSON on standard input.

Standard input stays open as long as the sweep lives. When it closes, the sweep is gone, also by kill -9, and this
process ends at once: what was paid for is in the run's folder, and the next attempt goes on from there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import Final, cast

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import FedcpscError, RunError, explain
from fedcpsc.report.after_run import draw
from fedcpsc.runs.claim import Existing, claim, finished
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.sweep.folder import is_refit
from fedcpsc.sweep.made_silos import copy_made, make_once
from fedcpsc.sweep.tasks import Job
from fedcpsc.teachers.manifest import MANIFEST_FILE
from fedcpsc.typed_yaml import validate

__all__ = ["do", "main"]

_STDIN: Final = 0
_ORPHANED: Final = 4


def main() -> int:
    """Reads the job and does it; returns the exit code. The last line printed says what went wrong."""
    job = cast(Job, json.loads(_first_line()))
    threading.Thread(target=_end_with_the_sweep, name="fedcpsc-sweep", daemon=True).start()
    try:
        do(job)
    except FedcpscError as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def do(job: Job) -> None:
    """Does a job in this process.

    Args:
        job: what to do.

    Raises:
        FedcpscError: it failed.
    """
    config = validate(RunConfig, job["config"], "job")
    if job["do"] == "silos":
        make_once(config, Path(job["made"]), lambda line: print(line, flush=True))
    elif job["do"] == "run":
        _run(config, job)
    else:
        _refit(job)
    if job["do"] != "silos" and (sorry := draw(Path(job["run_dir"]))):
        print(sorry, flush=True)


def _run(config: RunConfig, job: Job) -> None:
    from fedcpsc.simulated.one_process import run_local  # noqa: PLC0415 - brings torch

    run_dir, silos = Path(job["run_dir"]), Path(job["silos"])
    resume = claim(run_dir, Existing.RESUME)
    if resume:  # begun from another working directory, or before the sweep's folder was moved
        root = load_config(run_dir / CONFIG_FILE).silos.root
        config = config.model_copy(update={"silos": config.silos.model_copy(update={"root": root})})
    if resume and finished(run_dir, config) is not None:
        return
    if not resume:
        copy_made(Path(job["made"]), silos, config.silos.count)
    elif not all((silos / str(silo) / MANIFEST_FILE).exists() for silo in range(config.silos.count)):
        constraint = "are gone, with the ledgers of what the run in its folder was answered"
        remedy = f"restore them, or delete {run_dir} too and the run begins anew"
        raise RunError(explain("silos", str(silos), constraint, remedy))
    tell = partial(print, flush=True)
    run_local(config, run_dir, silos, resume=resume, on_line=lambda line: None, tell=tell)


def _refit(job: Job) -> None:
    """A refit that was cut off is done over: it pays for nothing, so nothing of it need be kept."""
    from fedcpsc.simulated.refitting import refit_run  # noqa: PLC0415 - brings torch

    source, run_dir = Path(job["source"]), Path(job["run_dir"])
    if (run_dir / CONFIG_FILE).exists():
        if not is_refit(run_dir):
            remedy = "move it away, or begin the sweep anew with --overwrite"
            raise RunError(explain("run", str(run_dir), "is none that shares answers", remedy))
        shutil.rmtree(run_dir)
    refit_run(source, job["overrides"], name=run_dir.name, tell=lambda line: print(line, flush=True))


def _first_line() -> bytes:
    """Without the buffer of `sys.stdin`, whose lock a thread would hold when the process ends."""
    found = b""
    while not found.endswith(b"\n"):
        more = os.read(_STDIN, 1 << 16)
        if not more:
            raise RunError(explain("job", found[:40].decode("utf-8", "replace"), "was cut off", "run the sweep again"))
        found += more
    return found


def _end_with_the_sweep() -> None:
    while os.read(_STDIN, 1 << 16):
        pass
    os._exit(_ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
