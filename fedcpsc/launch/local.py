"""The same run without Flower: gatekeepers and engine in one process, for debugging and where Ray does not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedcpsc.config import RunConfig
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.teachers import LocalTeachers
from fedcpsc.files import worked_on_alone
from fedcpsc.gatekeeper.gatekeeper import open_gatekeeper
from fedcpsc.logs import configure_quietly
from fedcpsc.runs.follow import OnLine, following
from fedcpsc.runs.health import ERROR_FILE, note_failure
from server.silo_facts import read_silo_facts

__all__ = ["run_local"]


def run_local(config: RunConfig, run_dir: Path, silos: Path, *, resume: bool, on_line: OnLine) -> dict[str, Any]:
    """Runs it and returns what it left in result.json.

    Args:
        config: of the run.
        run_dir: folder of the run.
        silos: folder of the silos' folders `0`, `1`, ...
        resume: go on from the checkpoint in `run_dir`.
        on_line: called with each new line of metrics.jsonl, from another thread.

    Raises:
        FedcpscError: the run failed.
    """
    configure_quietly(config.output.log_format)
    with worked_on_alone(run_dir):
        (run_dir / ERROR_FILE).unlink(missing_ok=True)
        try:
            return _run_here(config, run_dir, silos, resume=resume, on_line=on_line)
        except Exception as error:
            note_failure(run_dir, error)
            raise


def _run_here(config: RunConfig, run_dir: Path, silos: Path, *, resume: bool, on_line: OnLine) -> dict[str, Any]:
    gatekeepers = [open_gatekeeper(silos / str(index)) for index in range(config.silos.count)]
    teachers = LocalTeachers(gatekeepers)
    try:
        evaluation = evaluation_images(config)
        with following(run_dir / "metrics.jsonl", on_line):
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
