# SPDX-License-Identifier: Apache-2.0
"""The same run without Flower: gatekeepers and engine in one process, for debugging and where Ray does not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.sources import evaluation_images
from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport, SiloId
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.logs import configure_quietly
from fedcpsc.models.device import torch_threads
from fedcpsc.models.own_module import GivenStudent
from fedcpsc.models.scattering import shared_features
from fedcpsc.protocol.messages import QueryTarget
from fedcpsc.runs.claim import worked_on_alone
from fedcpsc.runs.failure import forget_failure, note_failure
from fedcpsc.runs.follow import OnLine
from fedcpsc.runs.result import RunResult
from fedcpsc.simulated.silo_facts import read_silo_facts

__all__ = ["attempt", "run_local", "run_over"]


def run_local(
    config: RunConfig,
    run_dir: Path,
    silos: Path,
    *,
    resume: bool,
    on_line: OnLine,
    tell: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Runs it over the silos in a folder, as a program of its own, and returns its result.

    Args:
        config: configuration of the run.
        run_dir: folder of the run.
        silos: folder of the silos' folders `0`, `1`, ...
        resume: whether to go on from the checkpoint in `run_dir`.
        on_line: function called with each new line of metrics.jsonl.
        tell: function called with one line for each event an operator should know.

    Raises:
        FedcpscError: the run failed.
    """
    configure_quietly(config.output.log_format)
    with attempt(run_dir):
        gatekeepers = [open_gatekeeper(silos / str(index)) for index in range(config.silos.count)]
        try:
            evaluation, facts = evaluation_images(config), read_silo_facts(silos)
            return run_over(
                config,
                run_dir,
                gatekeepers,
                resume=resume,
                evaluation=evaluation,
                silo_facts=facts,
                on_line=on_line,
                tell=tell,
            )
        finally:
            for gatekeeper in gatekeepers:
                gatekeeper.close()


@contextmanager
def attempt(run_dir: Path) -> Iterator[None]:
    """Holds the run's folder for one attempt at the run; what it fails of is noted there.

    Args:
        run_dir: folder of the run, made where it is missing.

    Raises:
        RunError: another process works on the run.
    """
    with worked_on_alone(run_dir):
        forget_failure(run_dir)
        try:
            yield
        except Exception as error:
            note_failure(run_dir, error)
            raise


def run_over(
    config: RunConfig,
    run_dir: Path,
    gatekeepers: Sequence[QueryTarget],
    *,
    resume: bool,
    evaluation: ImageSet | None,
    silo_facts: Mapping[SiloId, SiloFacts],
    on_line: OnLine,
    tell: Callable[[str], None] = lambda line: None,
    student: GivenStudent | None = None,
) -> RunResult:
    """Runs it over open gatekeepers of this process; number of torch threads and random streams stay the caller's.

    Args:
        config: configuration of the run.
        run_dir: folder of the run.
        gatekeepers: silos; left open.
        resume: whether to go on from the checkpoint in `run_dir`.
        evaluation: held-out images; they are only looked at.
        silo_facts: teachers past their gatekeepers, to measure with.
        on_line: function called with each new line of metrics.jsonl.
        tell: function called with one line for each event an operator should know.
        student: module of the caller's own to be fitted; None takes the configured architecture.

    Raises:
        FedcpscError: the run failed.
    """
    transport = LocalTransport(gatekeepers)
    try:
        with torch_threads(0), shared_features():  # `runtime.threads` holds until the run ends
            return distill(
                config,
                transport,
                run_dir,
                resume=resume,
                evaluation=evaluation,
                silo_facts=silo_facts,
                tell=tell,
                progress=on_line,
                student=student,
            )
    finally:
        transport.close()
