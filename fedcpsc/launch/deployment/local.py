"""What `fedcpsc deploy local` does: silos, the federation, and then either wait or do the run at once."""

from __future__ import annotations

import os
import shlex
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

from rich.console import Console

from fedcpsc.app_config import AppConfig
from fedcpsc.config import RunConfig
from fedcpsc.launch.app_folder import stage_app
from fedcpsc.launch.deployment.federation import Federation, check_start, federation
from fedcpsc.launch.deployment.layout import Layout, claimed
from fedcpsc.launch.deployment.members import CONNECTION
from fedcpsc.launch.deployment.show import stand_by
from fedcpsc.launch.run import Request, make_teachers, with_absolute_data
from fedcpsc.launch.show import RunView, result_table
from fedcpsc.launch.submitted import see_to_its_end

__all__ = ["LocalDeployment", "deploy_local"]

_PATIENCE_S = 300.0
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True)
class LocalDeployment:
    """What was asked for on the command line.

    Attributes:
        request: the run's file and overrides.
        folder: of the deployment.
        silos: how many; None takes the configuration's.
        port: of the SuperLink; None takes a free one.
        run: do the run, and take everything down when it has ended.
    """

    request: Request
    folder: Path
    silos: int | None = None
    port: int | None = None
    run: bool = False


def deploy_local(wanted: LocalDeployment, console: Console) -> None:
    """Brings the federation up, and stays until interrupted or until the run has ended; then it is all taken down.

    Raises:
        KeyboardInterrupt: it was told to stop.
        FedcpscError: it did not come up, or the run failed.
    """
    with claimed(wanted.folder) as layout, ExitStack() as stack:
        request = _of_so_many(with_absolute_data(wanted.request), wanted.silos, layout)
        config = request.load()
        check_start(wanted.port)  # before teachers are trained for nothing
        stage_app(layout.app, request.path)
        layout.run_config.write_text(_given(request).to_toml(), encoding="utf-8")
        silos = make_teachers(config, console)
        folders = [silos / str(number) for number in range(config.silos.count)]
        with console.status("deployment") as status:
            made = stack.enter_context(federation(layout, folders, wanted.port, status.update))
            stack.enter_context(made.crew.kept_up())
        if wanted.run:
            _run(made, request, config, console)
        else:
            say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
            say(f"{config.silos.count} silos are up at {made.address}. In another terminal:\n\n{_command(layout)}\n")
            say("Ctrl-C takes everything down.")
            stand_by(made.crew, console)


def _of_so_many(request: Request, silos: int | None, layout: Layout) -> Request:
    """The request for so many silos. Another number than the file's is another partition: its silos lie elsewhere."""
    config = request.load()
    number = silos or config.silos.count
    own = [f"silos.count={number}", f"output.root={layout.runs}"]
    if number != config.silos.count:
        own.append(f"silos.root={config.silos.root}-of-{number}")
    return replace(request, overrides=(*request.overrides, *own))


def _given(request: Request, outdir: str = "") -> AppConfig:
    return AppConfig(str(request.path.absolute()), AppConfig.join_overrides(list(request.overrides)), outdir)


def _run(made: Federation, request: Request, config: RunConfig, console: Console) -> None:
    run_dir = _free(made.layout.runs / config.output.name)
    run_config = made.layout.folder / "this-run.toml"
    run_config.write_text(_given(request, str(run_dir)).to_toml(), encoding="utf-8")
    with RunView(console, config.output.name) as view:
        result = see_to_its_end(made.flower, made.layout.app, run_config, run_dir, view.line, patience_s=_PATIENCE_S)
    console.print(result_table(result))
    console.print(f"left in {run_dir}", highlight=False, soft_wrap=True)


def _free(run_dir: Path) -> Path:
    """It, or with the first number that is not taken."""
    numbered = (run_dir.with_name(f"{run_dir.name}-{number}") for number in count(2))
    return next(path for path in chain([run_dir], numbered) if not path.exists())


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
