"""A run that Flower carries, from its submission to its end, and the truth about how it ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fedcpsc import errors
from fedcpsc.errors import FedcpscError, RunError, explain
from fedcpsc.launch.flower_commands import FlowerCommands, RunStatus
from fedcpsc.report.tail import MetricsTail, OnLine

__all__ = ["see_to_its_end"]

_LOOK_S = 0.3
_SETTLE_S = 20.0
_LOG, _ERROR, _RESULT, _METRICS = "flower.log", "error.txt", "result.json", "metrics.jsonl"


def see_to_its_end(
    flower: FlowerCommands,
    app_folder: Path,
    run_config: Path,
    run_dir: Path,
    on_line: OnLine,
    federation_config: str | None = None,
) -> dict[str, Any]:
    """Submits a run, follows it, and returns what it left in result.json.

    Args:
        flower: of the SuperLink.
        app_folder: the app, as `stage_app` leaves it.
        run_config: TOML file whose `outdir` is `run_dir`.
        run_dir: folder of the run; takes `flower.log`, and `error.txt` where the run failed.
        on_line: called with each new line of metrics.jsonl.
        federation_config: how many nodes are simulated; None in a deployment.

    Raises:
        FedcpscError: the run failed; of the class that the ServerApp raised, where that is one of ours.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / _ERROR).unlink(missing_ok=True)
    tail = MetricsTail(run_dir / _METRICS)
    run_id = flower.submit(app_folder, run_config, federation_config)
    following = flower.follow(run_id, run_dir / _LOG)
    while following.poll() is None:
        for line in tail.read():
            on_line(line)
        time.sleep(_LOOK_S)
    status = _final_status(flower, run_id)
    for line in tail.read():
        on_line(line)
    if not status.completed or not (run_dir / _RESULT).exists():
        raise _failure(run_dir, status)
    result: dict[str, Any] = json.loads((run_dir / _RESULT).read_text(encoding="utf-8"))
    return result


def _final_status(flower: FlowerCommands, run_id: str) -> RunStatus:
    """The log ends a moment before the status settles."""
    deadline = time.monotonic() + _SETTLE_S
    while not (status := flower.status(run_id)).name.startswith("finished") and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return status


def _failure(run_dir: Path, status: RunStatus) -> FedcpscError:
    reason = run_dir / _ERROR
    if reason.exists():
        kind, _, message = reason.read_text(encoding="utf-8").strip().partition(": ")
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, FedcpscError):
            return known(message)
        return RunError(explain("run", f"{kind}: {message}", "failed", f"read {run_dir / _LOG}"))
    return RunError(explain("run", f"{status.name} {status.details}".strip(), "failed", f"read {run_dir / _LOG}"))
