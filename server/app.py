# SPDX-License-Identifier: Apache-2.0
"""The Flower ServerApp: configuration -> silos join -> distillation. It raises where the run failed, and never exits.

Order matters in a simulation: Ray starts in this very process and forks, and linear algebra in another thread would
then hang it. So torch and the engine are imported only when every silo has joined.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcpsc.app_config import AppConfig
from fedcpsc.config import RunConfig
from fedcpsc.distillation.exclusion import connect_silos
from fedcpsc.errors import ConfigError, DataError, explain
from fedcpsc.logs import configure_quietly
from fedcpsc.report.after_run import draw_apart
from fedcpsc.runs.claim import worked_on_alone
from fedcpsc.runs.evaluation_words import without_test_images
from fedcpsc.runs.failure import forget_failure, note_failure
from fedcpsc.runs.follow import following
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.result import RunResult
from server.flower_transport import FlowerTransport

__all__ = ["Plan", "app", "is_simulation", "prepare", "run"]

_MOST_SILOS = 20  # that are named one by one

APP_FOLDER = Path(__file__).resolve().parent.parent

app = ServerApp()


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        config: configuration of the run.
        run_dir: absolute folder of the run.
        silos: folder of the simulated silos; None in a deployment.
        resume: whether to go on from the checkpoint in `run_dir`.
    """

    config: RunConfig
    run_dir: Path
    silos: Path | None
    resume: bool


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What Flower calls."""
    given = AppConfig.of(context.run_config)
    try:
        plan = prepare(given, grid, context.run_id)
    except Exception as error:
        if given.outdir:  # Flower shows the reason of a failed run to nobody who does not read its log
            note_failure(Path(given.outdir), error)
        raise
    with worked_on_alone(plan.run_dir):  # an attempt that Flower believes dead may live
        try:
            forget_failure(plan.run_dir)  # of an attempt that is now gone on with
            configure_quietly(plan.config.output.log_format)
            run(plan, grid)
        except Exception as error:
            note_failure(plan.run_dir, error)
            raise


def prepare(given: AppConfig, grid: Grid, run_id: int) -> Plan:
    """Reads the configuration; in a plain `flwr run .` also makes the simulated silos.

    Raises:
        ConfigError: the configuration is wrong.
        DataError: the silos could not be made.
    """
    config = given.load(APP_FOLDER)
    run_dir = Path(given.outdir or f"{config.output.root}/{config.output.name}-{run_id}").absolute()
    if not is_simulation(grid):
        return Plan(config.in_deployment(), run_dir, None, given.resume)
    if (config.queries.in_flight or 1) > 1:
        constraint = "must be 1 in a simulation, which runs a node's messages at the same time and in any order"
        raise ConfigError(explain("queries.in_flight", config.queries.in_flight, constraint, "leave it out"))
    silos = given.silos_folder(APP_FOLDER)
    if not given.silos:
        _make_silos(given, silos)
    return Plan(config, run_dir, silos, given.resume)


def run(plan: Plan, grid: Grid) -> None:
    """From the first message to the silos to the result.

    Raises:
        FedcpscError: as `distill`.
    """
    config = plan.config
    simulated = None if plan.silos is None else config.silos.count
    transport = FlowerTransport(grid, ttl_s=config.queries.deadline_s, simulated=simulated)
    try:
        print(f"waiting for {config.silos.count} silos")
        joined = connect_silos(transport, config, plan.run_dir)
        who = ", ".join(sorted(joined)) if len(joined) <= _MOST_SILOS else f"{len(joined)} silos"
        print(f"joined: {who or 'none'}")
        # only now: see the head of this file
        from fedcpsc.data.sources import evaluation_images  # noqa: PLC0415
        from fedcpsc.distillation.run import distill  # noqa: PLC0415
        from fedcpsc.simulated.silo_facts import read_silo_facts  # noqa: PLC0415

        with following(plan.run_dir, _show):
            result = distill(
                config,
                transport,
                plan.run_dir,
                resume=plan.resume,
                evaluation=evaluation_images(config),
                silo_facts=None if plan.silos is None else read_silo_facts(plan.silos),
                tell=print,
            )
        print("\n".join([_summary(result), *without_test_images(result)]))
    finally:
        transport.close()
    print(draw_apart(plan.run_dir) or f"the whole run on one page: {plan.run_dir / REPORT_FILE}")
    print(f"left in {plan.run_dir}")


def is_simulation(grid: Grid) -> bool:
    """Whether the nodes are simulated in this process. Flower tells it nowhere; its Grid differs."""
    return type(grid).__name__ == "InMemoryGrid"


def _make_silos(given: AppConfig, silos: Path) -> None:
    """In a process of its own: training here, while Ray starts, would hang both."""
    overrides = [item for item in given.overrides.split(";") if item.strip()]
    overrides.append(f"silos.root={silos}")
    command = [sys.executable, "-m", "fedcpsc.cli", "teachers", str(APP_FOLDER / given.config)]
    command += [part for item in overrides for part in ("--set", item)]
    paths = os.pathsep.join([str(APP_FOLDER), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    made = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    print(made.stdout, end="")
    if made.returncode:
        remedy = f"run fedcpsc teachers {given.config} yourself"
        raise DataError(explain("silos", str(silos), f"could not be made ({made.stderr.strip()})", remedy))


def _summary(result: RunResult) -> str:
    silos = result["silos"]
    parts = [(f"teacher {silo['id']}", silo["teacher_accuracy"]) for silo in silos]
    if len(silos) > _MOST_SILOS:
        known = [accuracy for _, accuracy in parts if accuracy is not None]
        parts = [(f"median of {len(silos)} teachers", statistics.median(known) if known else None)]
    parts += [("ensemble", result["ensemble"]["accuracy"]), ("student", result["student"]["accuracy"])]
    accuracies = ", ".join(name if accuracy is None else f"{name} {accuracy:.1%}" for name, accuracy in parts)
    seconds = result["seconds"]
    later = seconds.get("waiting_share_after_first_round", 0.0)
    return f"{accuracies}; {seconds['total']:.0f} s, after the first round {later:.1%} of it only waiting"


def _show(line: MetricsLine) -> None:
    """A round, for whoever streams Flower's log."""
    if line["phase"] == "final" and line["share_done"] < 1:
        return
    where = f"round {line['round']}/{line['rounds']}" if line["phase"] == "round" else "final fit"
    accuracy = line.get("student_accuracy")
    shown = f", student {accuracy:.1%}" if accuracy is not None else ""
    alarm = ", ALARM: the silos call nearly everything one class" if line["alarm"] else ""
    print(f"{where}: {line['bank']} images banked{shown}{alarm}")
