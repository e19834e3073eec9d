# SPDX-License-Identifier: Apache-2.0
"""One run through Flower's simulation, under a SuperLink of its own."""

from __future__ import annotations

import os
from pathlib import Path

from fedcpsc.app_config import AppConfig
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app
from fedcpsc.launch.submitted import submit_and_wait
from fedcpsc.launch.superlink import SuperLink
from fedcpsc.runs.follow import OnLine
from fedcpsc.runs.result import RunResult

__all__ = ["run_simulation"]


def run_simulation(
    config: Path,
    overrides: list[str],
    run_dir: Path,
    silos: Path,
    nodes: int,
    *,
    resume: bool,
    on_line: OnLine,
) -> RunResult:
    """Runs it and returns its result. No process of it is alive afterwards, however it ended.

    Args:
        config: YAML file of the run.
        overrides: `a.b=c` items, the last of equal keys wins.
        run_dir: folder of the run; also takes Flower's logs, and the reason where the run failed.
        silos: folder of the silos' folders `0`, `1`, ...
        nodes: number of silos to simulate, >= 1.
        resume: whether to go on from the checkpoint in `run_dir`.
        on_line: function called with each new line of metrics.jsonl.

    Raises:
        FedcpscError: the run failed; of the class that the ServerApp raised, where that is one of ours.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with SuperLink(run_dir) as link:
        app_folder = link.home / "staged" / "fedcpsc"
        stage_app(app_folder, config)
        joined = AppConfig.join_overrides(overrides)
        given = AppConfig(CONFIG_IN_APP, joined, str(run_dir.absolute()), resume, str(silos.absolute()))
        run_config = link.home / "run.toml"
        run_config.write_text(given.to_toml(), encoding="utf-8")
        return submit_and_wait(link.flower, app_folder, run_config, run_dir, on_line, _federation(nodes))


def _federation(nodes: int) -> str:
    """One CPU a node, so that several nodes work at once, and no more Ray actors than nodes."""
    cpus = min(os.cpu_count() or 1, nodes)
    return f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={cpus}"
