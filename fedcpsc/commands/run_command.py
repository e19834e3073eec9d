# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc run` does: silos, run folder, the run itself, its table; once, or once for each of several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedcpsc.commands.literal import literal
from fedcpsc.commands.run_view import RunView, result_table, seeds_table
from fedcpsc.commands.seeds_summary import SeedsSummary, summarise
from fedcpsc.commands.start_from import check_start
from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import ConfigError, explain
from fedcpsc.launch.simulation import run_simulation
from fedcpsc.plain_yaml import quoted
from fedcpsc.report.after_run import draw, is_drawn
from fedcpsc.runs.claim import Existing, claim, finished
from fedcpsc.runs.layout import BANK_FOLDER, REPORT_FILE
from fedcpsc.runs.real_pictures import read_public
from fedcpsc.runs.result import RunResult
from fedcpsc.strict_json import format_json

if TYPE_CHECKING:
    from fedcpsc.data.reading import ReadingReport

__all__ = [
    "Request",
    "check_files_are_there",
    "make_teachers",
    "run_once",
    "run_seeds",
    "show_result",
    "with_absolute_paths",
]

# torch, and whatever imports it, is imported where it is needed: `fedcpsc --help` must not wait for it


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        path: YAML file of the run.
        overrides: `a.b=c` items, the last of equal keys wins.
        existing: choice of what to do where the run's folder holds a run.
        local: whether to run without Flower, in this process.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    existing: Existing = Existing.REFUSE
    local: bool = False

    def load(self) -> RunConfig:
        """The run's configuration.

        Raises:
            ConfigError: as `load_config`.
        """
        return load_config(self.path, list(self.overrides))


def make_teachers(
    config: RunConfig,
    console: Console,
    only: int | None = None,
    on_shape: Callable[[int, tuple[int, int, int]], None] | None = None,
) -> Path:
    """Makes the simulated silos' folders, or the only one asked for; reuses those that match.

    Args:
        config: configuration of the run.
        console: where it is told.
        only: number of the one silo to make; None makes all.
        on_shape: as of `make_silos`.

    Returns:
        The folder they lie in.

    Raises:
        FedcpscError: data or silos are not as configured.
    """
    from fedcpsc.silos.make import make_silos  # noqa: PLC0415

    folder = Path(config.silos.root).absolute()

    def show(line: object) -> None:
        console.print(str(line), markup=False, highlight=False, soft_wrap=True)

    def show_reading(reading: ReadingReport) -> None:
        show("\n".join(reading.lines()))

    with console.status("silos") as status:
        reports = make_silos(config, folder, status.update, only, show_reading, tell=show, on_shape=on_shape)
    for report in reports:
        show(report)
    return folder


def run_once(request: Request, console: Console) -> RunResult:
    """One run; returns its result.

    Raises:
        FedcpscError: it failed, or its folder is taken.
    """
    request = with_absolute_paths(request)
    config = request.load()
    run_dir = Path(config.output.root).absolute() / config.output.name
    if request.existing is not Existing.RESUME or not (run_dir / BANK_FOLDER).exists():
        check_start(config, run_dir, console)
    resume = claim(run_dir, request.existing)
    result = finished(run_dir, config) if resume else None
    if result is None:
        check_files_are_there(config)
        if resume and (run_dir / BANK_FOLDER).exists():
            _check_same_weights(config, run_dir)
        silos = make_teachers(config, console, on_shape=lambda classes, shape: _check_student(config, classes, shape))
        with RunView(console, config.output.name) as view:
            result = _run(request, config, run_dir, silos, resume=resume, view=view)
    show_result(result, run_dir, console)
    return result


def _check_student(config: RunConfig, classes: int, image_shape: tuple[int, int, int]) -> None:
    """Does nothing where the student can be fitted, as far as the first silo tells: teachers may take hours.

    Args:
        config: configuration of the run.
        classes: number of the first silo's classes.
        image_shape: (C, H, W) of its images.

    Raises:
        ConfigError: it cannot.
    """
    from fedcpsc.distillation.student_start import student_start  # noqa: PLC0415 - brings torch
    from fedcpsc.models.student_check import check_student  # noqa: PLC0415 - as above

    if config.silos.label_sets == "federation" and not config.aggregation.aliases:  # else K is not known yet
        check_student(config, classes, image_shape, student_start(config.student, None))


def _check_same_weights(config: RunConfig, run_dir: Path) -> None:
    """Does nothing where a run that is gone on with starts from the weights that it began with.

    Raises:
        RunError: it does not.
        ConfigError: the weights cannot be read.
    """
    if config.student.weights is None and config.teachers.weights is None:
        return
    from fedcpsc.distillation.student_start import described_start, student_start  # noqa: PLC0415 - brings torch
    from fedcpsc.runs.student_start import check_same_start  # noqa: PLC0415 - as above
    from fedcpsc.silos.make import check_same_weights  # noqa: PLC0415 - as above

    check_same_start(run_dir, described_start(student_start(config.student, None)))
    check_same_weights(config, Path(config.silos.root).absolute())


def show_result(result: RunResult, run_dir: Path, console: Console) -> None:
    """The table of a finished run, and where its page and files are; draws the page where the run has left none."""
    for line in (read_public(run_dir) or {"reading": []})["reading"]:
        console.print(literal(line), highlight=False, soft_wrap=True)
    console.print(result_table(result))
    sorry = None if is_drawn(run_dir) else draw(run_dir)
    page = sorry or f"the whole run on one page: {run_dir / REPORT_FILE}"
    for line in (page, f"left in {run_dir}"):
        console.print(literal(line), highlight=False, soft_wrap=True)


def run_seeds(request: Request, count: int, console: Console) -> SeedsSummary:
    """The run with `count` seeds from the configured one on, each with silos and a run folder of its own.

    Raises:
        FedcpscError: one failed; those before it stay, and RESUME goes on with it.
    """
    from fedcpsc.silos.adopted import check_no_adopted  # noqa: PLC0415 - brings torch

    config = request.load()
    if config.queries.start_from is not None:
        constraint = "makes silos of their own for each seed, and these answers are of one seed's silos"
        remedy = "run it once, or fit several students to what is banked: fedcpsc refit"
        raise ConfigError(explain("--seeds", count, constraint, remedy))
    check_no_adopted(config, "--seeds", count, "run each seed by itself: --set seed=... --name ...")
    name, root = config.output.name, Path(config.output.root)
    results = []
    for seed in range(config.seed, config.seed + count):
        own = (
            f"seed={seed}",
            f"output.name={quoted(f'{name}-seed{seed}')}",
            f"silos.root={quoted(f'{config.silos.root}-seed{seed}')}",
        )
        results.append(run_once(replace(request, overrides=(*request.overrides, *own)), console))
    summary = summarise(name, results)
    path = root / f"{name}-seeds.json"
    path.write_text(format_json(summary, path, indent=2) + "\n", encoding="utf-8")
    console.print(seeds_table(summary))
    console.print(literal(f"left in {path}"), highlight=False, soft_wrap=True)
    return summary


def with_absolute_paths(request: Request) -> Request:
    """The same with absolute paths of all that the configuration names: Flower's processes work in another folder.

    Raises:
        ConfigError: as `Request.load`.
    """
    config = request.load()
    paths = {
        "data.path": config.data.path,
        "queries.start_from": config.queries.start_from,
        "teachers.weights": config.teachers.weights,
        "student.weights": config.student.weights,
    }
    if config.synthesis.public is not None:
        paths["synthesis.public.path"] = config.synthesis.public.path
    absolute = (f"{key}={quoted(str(Path(path).expanduser().absolute()))}" for key, path in paths.items() if path)
    return replace(request, overrides=(*request.overrides, *absolute))


def check_files_are_there(config: RunConfig) -> None:
    """Does nothing where the server's own pictures and the student's weights are there, if any are wanted.

    Raises:
        ConfigError, DataError: they are not: told before teachers are trained for nothing.
    """
    weights = config.student.weights
    if weights is not None and not Path(weights).exists():
        remedy = "check the path; weights are never downloaded"
        raise ConfigError(explain("student.weights", weights, "is not there", remedy))
    if config.synthesis.public is not None:
        from fedcpsc.data.unlabelled import find_pictures  # noqa: PLC0415 - brings Pillow and arrays

        find_pictures(config.synthesis.public)


def _run(request: Request, config: RunConfig, run_dir: Path, silos: Path, *, resume: bool, view: RunView) -> RunResult:
    if request.local:
        from fedcpsc.simulated.one_process import run_local  # noqa: PLC0415

        return run_local(config, run_dir, silos, resume=resume, on_line=view.line, tell=view.event)
    overrides, count = list(request.overrides), config.silos.count
    return run_simulation(request.path, overrides, run_dir, silos, count, resume=resume, on_line=view.line)
