# SPDX-License-Identifier: Apache-2.0
"""The same run without Flower: gatekeepers and engine in one process, for debugging and where Ray does not run."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.logs import configure_quietly
from fedcpsc.runs.claim import worked_on_alone
from fedcpsc.runs.failure import forget_failure, note_failure
from fedcpsc.runs.follow import OnLine, following
from fedcpsc.runs.result import RunResult
from fedcpsc.simulated.silo_facts import read_silo_facts

__all__ = ["run_local"]


def run_local(config: RunConfig, run_dir: Path, silos: Path, *, resume: bool, on_line: OnLine) -> RunResult:
    """Runs it and returns its result.

    Args:
        config: configuration of the run.
        run_dir: folder of the run.
        silos: folder of the silos' folders `0`, `1`, ...
        resume: whether to go on from the checkpoint in `run_dir`.
        on_line: function called with each new line of metrics.jsonl, from another thread.

    Raises:
        FedcpscError: the run failed.
    """
    configure_quietly(config.output.log_format)
    with worked_on_alone(run_dir):
        forget_failure(run_dir)
        try:
            return _run_here(config, run_dir, silos, resume=resume, on_line=on_line)
        except Exception as error:
            note_failure(run_dir, error)
            raise


def _run_here(config: RunConfig, run_dir: Path, silos: Path, *, resume: bool, on_line: OnLine) -> RunResult:
    gatekeepers = [open_gatekeeper(silos / str(index)) for index in range(config.silos.count)]
    teachers = LocalTransport(gatekeepers)
    try:
        evaluation = evaluation_images(config)
        with following(run_dir, on_line):
            return distill(
                config,
                teachers,
                run_dir,
                resume=resume,
                evaluation=evaluation,
                silo_facts=read_silo_facts(silos),
            )
    finally:
        teachers.close()
        for gatekeeper in gatekeepers:
            gatekeeper.close()
