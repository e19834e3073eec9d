# SPDX-License-Identifier: Apache-2.0
"""What `fedcpsc deploy local` does: silos, the federation, and then either wait or do the run at once."""

from __future__ import annotations

import os
import shlex
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, takewhile
from pathlib import Path

from rich.console import Console

from fedcpsc.app_config import AppConfig
from fedcpsc.commands.deployment_table import show_until_interrupted
from fedcpsc.commands.run_command import Request, check_files_are_there, make_teachers, show_result, with_absolute_paths
from fedcpsc.commands.run_view import RunView
from fedcpsc.config import RunConfig
from fedcpsc.errors import RunError, explain
from fedcpsc.launch.app_folder import stage_app
from fedcpsc.launch.deployment.federation import Federation, check_start, federation
from fedcpsc.launch.deployment.layout import Layout, claimed
from fedcpsc.launch.deployment.members import CONNECTION
from fedcpsc.launch.submitted import submit_and_wait
from fedcpsc.runs.claim import finished

__all__ = ["LocalDeployment", "deploy_local"]

_PATIENCE_S = 300.0
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True)
class LocalDeployment:
    """What was asked for on the command line.

    Attributes:
        request: file of the run, and overrides.
        folder: folder of the deployment.
        silos: number of silos, >= 1; None takes the configuration's.
        port: port of the SuperLink; None takes a free one.
        run: whether to do the run, and take everything down when it has ended.
        resume: whether to go on with the last run of this name in the folder, rather than begin another; implies `run`.
    """

    request: Request
    folder: Path
    silos: int | None = None
    port: int | None = None
    run: bool = False
    resume: bool = False


def deploy_local(wanted: LocalDeployment, console: Console) -> None:
    """Brings the federation up, and stays until interrupted or until the run has ended; then it is all taken down.

    Raises:
        KeyboardInterrupt: the user stopped it.
        FedcpscError: it did not come up, or the run failed.
    """
    with claimed(wanted.folder) as layout, ExitStack() as stack:
        request = _of_so_many(with_absolute_paths(wanted.request), wanted.silos, layout)
        config = request.load()
        run_dir = _run_folder(layout, config, resume=wanted.resume)
        if wanted.resume and (done := finished(run_dir, config.in_deployment())):
            show_result(done, run_dir, console)
            return
        check_files_are_there(config)
        check_start(wanted.port)  # before teachers are trained for nothing
        stage_app(layout.app, request.path)
        layout.run_config.write_text(_given(request).to_toml(), encoding="utf-8")
        silos = make_teachers(config, console)
        folders = [silos / str(number) for number in range(config.silos.count)]
        with console.status("deployment") as status:
            made = stack.enter_context(federation(layout, folders, wanted.port, status.update))
            stack.enter_context(made.supervisor.supervise())
        if wanted.run or wanted.resume:
            _run(made, request, run_dir, wanted.resume, console)
        else:
            say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
            say(f"{config.silos.count} silos are up at {made.address}. In another terminal:\n\n{_command(layout)}\n")
            say("Ctrl-C takes everything down.")
            show_until_interrupted(made.supervisor, console)


def _of_so_many(request: Request, silos: int | None, layout: Layout) -> Request:
    """The request for so many silos. Another number than the file's is another partition: its silos lie elsewhere."""
    config = request.load()
    number = silos or config.silos.count
    own = [f"silos.count={number}", f"output.root={layout.runs}"]
    if number != config.silos.count:
        from fedcpsc.silos.adopted import check_no_adopted  # noqa: PLC0415 - brings torch

        check_no_adopted(config, "--silos", number, "leave it out, or set silos.count and another silos.root")
        own.append(f"silos.root={config.silos.root}-of-{number}")
    return replace(request, overrides=(*request.overrides, *own))


def _run_folder(layout: Layout, config: RunConfig, *, resume: bool) -> Path:
    """Named after the run, or with the first number that is not taken; to resume, the last that is.

    Raises:
        RunError: there is no run to resume.
    """
    first = layout.runs / config.output.name
    names = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
    taken = list(takewhile(Path.exists, names))
    if not resume:
        return first.with_name(f"{first.name}-{len(taken) + 1}") if taken else first
    if not taken:
        raise RunError(explain("--resume", str(first), "there is no such run", "begin one with --run"))
    return taken[-1]


def _run(made: Federation, request: Request, run_dir: Path, resume: bool, console: Console) -> None:
    run_config = made.layout.folder / "this-run.toml"
    run_config.write_text(_given(request, str(run_dir), resume=resume).to_toml(), encoding="utf-8")
    with RunView(console, run_dir.name) as view:
        result = submit_and_wait(made.flower, made.layout.app, run_config, run_dir, view.line, patience_s=_PATIENCE_S)
    show_result(result, run_dir, console)


def _given(request: Request, outdir: str = "", *, resume: bool = False) -> AppConfig:
    overrides = AppConfig.join_overrides(list(request.overrides))
    return AppConfig(str(request.path.absolute()), overrides, outdir, resume)


def _command(layout: Layout) -> str:
    """The line that starts the run from any shell; in a checkout of this project with the app as it lies there."""
    variables = {"FLWR_HOME": str(layout.server / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
    if any(os.environ.get(name) for name in _PROXIES):
        variables["NO_PROXY"] = "127.0.0.1"
    app = "." if _is_this_project(Path("pyproject.toml")) else str(layout.app)
    words = ["flwr", "run", app, CONNECTION, "--stream", "--run-config", str(layout.run_config)]
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(words)])


def _is_this_project(settings: Path) -> bool:
    try:
        project = tomllib.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == "fedcpsc")
