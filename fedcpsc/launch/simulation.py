"""One run through Flower's simulation: own SuperLink, submit, follow, and the truth about how it ended."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from fedcpsc import errors
from fedcpsc.app_config import AppConfig
from fedcpsc.errors import FedcpscError, RunError, explain
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app
from fedcpsc.launch.superlink import RunStatus, SuperLink
from fedcpsc.report.tail import MetricsTail, OnLine

__all__ = ["run_simulation"]

_LOOK_S = 0.3
_SETTLE_S = 20.0
_LOG, _ERROR, _RESULT, _METRICS = "flower.log", "error.txt", "result.json", "metrics.jsonl"


def run_simulation(
    config: Path,
    overrides: list[str],
    run_dir: Path,
    silos: Path,
    nodes: int,
    *,
    resume: bool,
    on_line: OnLine,
) -> dict[str, Any]:
    """Runs it and returns what it left in result.json. No process of it is alive afterwards, however it ended.

    Args:
        config: YAML file of the run.
        overrides: `a.b=c` items.
        run_dir: folder of the run; also takes `flower.log`, and `error.txt` where the run failed.
        silos: folder of the silos' folders `0`, `1`, ...
        nodes: how many silos are simulated, >= 1.
        resume: go on from the checkpoint in `run_dir`.
        on_line: called with each new line of metrics.jsonl.

    Raises:
        FedcpscError: the run failed; of the class that the ServerApp raised, where that is one of ours.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / _ERROR).unlink(missing_ok=True)
    tail = MetricsTail(run_dir / _METRICS)
    with SuperLink(run_dir) as link:
        app_folder = link.home / "staged" / "fedcpsc"
        stage_app(app_folder, config)
        joined = AppConfig.join_overrides(overrides)
        given = AppConfig(CONFIG_IN_APP, joined, str(run_dir.absolute()), resume, str(silos.absolute()))
        run_config = link.home / "run.toml"
        run_config.write_text(given.to_toml(), encoding="utf-8")
        run_id = link.submit(app_folder, run_config, _federation(nodes))
        following = link.follow(run_id)
        while following.poll() is None:
            for line in tail.read():
                on_line(line)
            time.sleep(_LOOK_S)
        status = _final_status(link, run_id)
    for line in tail.read():
        on_line(line)
    if not status.completed or not (run_dir / _RESULT).exists():
        raise _failure(run_dir, status)
    result: dict[str, Any] = json.loads((run_dir / _RESULT).read_text(encoding="utf-8"))
    return result


def _federation(nodes: int) -> str:
    """One CPU a node, so that several nodes work at once, and no more Ray actors than nodes."""
    cpus = min(os.cpu_count() or 1, nodes)
    return f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={cpus}"


def _final_status(link: SuperLink, run_id: str) -> RunStatus:
    """The log ends a moment before the status settles."""
    deadline = time.monotonic() + _SETTLE_S
    while not (status := link.status(run_id)).name.startswith("finished") and time.monotonic() < deadline:
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
