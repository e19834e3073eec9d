# SPDX-License-Identifier: Apache-2.0
"""A run that Flower carries out, from its submission to its end, and how it really ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fedcpsc import errors
from fedcpsc.errors import FedcpscError, RunError, explain
from fedcpsc.launch.flower_commands import FlowerCommands, RunStatus
from fedcpsc.runs.failure import forget_failure, read_failure
from fedcpsc.runs.follow import MetricsTail, OnLine
from fedcpsc.runs.layout import FLOWER_LOG
from fedcpsc.runs.result import RunResult, read_result

__all__ = ["submit_and_wait"]

_LOOK_S = 0.3
_SETTLE_S = 20.0


def submit_and_wait(
    flower: FlowerCommands,
    app_folder: Path,
    run_config: Path,
    run_dir: Path,
    on_line: OnLine,
    federation_config: str | None = None,
    patience_s: float = 0.0,
) -> RunResult:
    """Submits a run, follows it, and returns its result.

    Args:
        flower: Flower's commands, against the SuperLink.
        app_folder: the app, as `stage_app` leaves it.
        run_config: TOML file whose `outdir` is `run_dir`.
        run_dir: folder of the run; takes Flower's log, and the reason where the run failed.
        on_line: function called with each new line of metrics.jsonl.
        federation_config: text that says how many nodes to simulate; None in a deployment.
        patience_s: longest absence of the SuperLink, in seconds, >= 0, after which the run is still followed on.

    Raises:
        FedcpscError: the run failed; of the class that the ServerApp raised, where that is one of ours.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    forget_failure(run_dir)
    tail = MetricsTail(run_dir)
    run_id = flower.submit(app_folder, run_config, federation_config)
    log = run_dir / FLOWER_LOG
    before = log.stat().st_size if log.exists() else 0
    while True:
        following = flower.follow(run_id, log)
        while following.poll() is None:
            for line in tail.read():
                on_line(line)
            time.sleep(_LOOK_S)
        status = _final_status(flower, run_id, patience_s)
        if patience_s == 0 or status.name.startswith("finished"):
            break
        os.truncate(log, before)  # Flower sends it from its beginning again
    for line in tail.read():
        on_line(line)
    result = read_result(run_dir) if status.completed else None
    if result is None:
        raise _failure(run_dir, status)
    return result


def _final_status(flower: FlowerCommands, run_id: str, patience_s: float) -> RunStatus:
    """The log ends a moment before the status settles; and where the SuperLink went away.

    Raises:
        RunError: it did not come back.
    """
    begun = time.monotonic()
    while True:
        waited_s = time.monotonic() - begun
        try:
            status = flower.status(run_id)
            if status.name.startswith("finished") or waited_s > _SETTLE_S:
                return status
        except RunError:
            if waited_s > patience_s:
                raise
        time.sleep(_LOOK_S)


def _failure(run_dir: Path, status: RunStatus) -> FedcpscError:
    reason = read_failure(run_dir)
    if reason is not None:
        kind, _, message = reason.partition(": ")
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, FedcpscError):
            return known(message)
        return RunError(explain("run", f"{kind}: {message}", "failed", f"read {run_dir / FLOWER_LOG}"))
    return RunError(explain("run", f"{status.name} {status.details}".strip(), "failed", f"read {run_dir / FLOWER_LOG}"))
