# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, one call, exit code.

Exit codes: 0 done; 1 failed; 2 the command line or a configuration is wrong; 3 an audit's lower bound exceeds a claim,
or a run has stalled (`status`); 130 stopped by the user.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fedcpsc.commands.bank_commands import bank_app
from fedcpsc.commands.comparison_commands import bench, refit, sweep
from fedcpsc.commands.deploy_commands import deploy_app
from fedcpsc.commands.exit_codes import exit_codes
from fedcpsc.commands.init_command import init
from fedcpsc.commands.last_resort import DEBUG_VARIABLE, last_resort
from fedcpsc.commands.override_option import Overrides
from fedcpsc.commands.owner_commands import mount
from fedcpsc.commands.terminal import console
from fedcpsc.errors import ConfigError, explain
from fedcpsc.export.plan import Format
from fedcpsc.runs.layout import REPORT_FILE
from fedcpsc.version import version

if TYPE_CHECKING:
    from fedcpsc.runs.claim import Existing

__all__ = ["app", "main"]

# what a command needs is imported when it is called: `fedcpsc --help` must wait for none of it (tests/test_start_up.py)

app = typer.Typer(
    name="fedcpsc",
    no_args_is_help=True,
    suggest_commands=False,  # click does already
    epilog="New here? [bold]fedcpsc init[/] writes a configuration, [bold]fedcpsc run FILE[/] runs it.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedcpsc {version()}")
        raise typer.Exit


@app.callback()
def options(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show the traceback of an unexpected error (or set {DEBUG_VARIABLE}=1).")
    ] = False,
) -> None:
    """Several silos' private teachers, asked but never seen, become one student."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # what this process starts shows them too


app.command("init")(init)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file of the run, see configs/.", show_default=False)]
RunPath = Annotated[Path, typer.Argument(help="A run's folder, for example runs/digits.", show_default=False)]
AuditPath = Annotated[
    Path | None, typer.Option(metavar="AUDIT_DIR", help="Folder of an audit of this run (audit.json).")
]


def _existing(resume: bool, overwrite: bool) -> Existing:
    from fedcpsc.runs.claim import Existing

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite: choose one")
    return Existing.RESUME if resume else Existing.OVERWRITE if overwrite else Existing.REFUSE


def _named(name: str | None) -> list[str]:
    """The override of `--name`, taken as the text it is: 2026-11-28 is no date here, and 42 no number."""
    from fedcpsc.plain_yaml import quoted

    return [] if name is None else [f"output.name={quoted(name)}"]


@app.command()
def teachers(
    config: ConfigPath,
    overrides: Overrides = None,
    silo: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the only silo to make, from 0: for its owner, on its own machine."),
    ] = None,
) -> None:
    """Make the simulated silos: private data dealt out, a teacher trained in each, policy and ledger beside it.

    Silos that match the configuration already are reused.

    Example: [bold]fedcpsc teachers configs/digits.yaml --set silos.count=5[/]
    """
    with exit_codes():
        from fedcpsc.commands.run_command import Request, make_teachers

        folder = make_teachers(Request(config, tuple(overrides or ())).load(), console(), silo)
        words = ["run", str(config), *(word for item in overrides or () for word in ("--set", item))]
        words = words if silo is None else ["policy", "check", str(folder / str(silo))]
        then = f"left in {folder}; next: {shlex.join(['fedcpsc', *words])}"
        console().print(then, markup=False, highlight=False, soft_wrap=True)


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the run, see configs/; with --from, RUN's own where left out.")
    ] = None,
    *,
    overrides: Overrides = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Folder of a run whose images and answers this one begins with."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds to run, from the configured one on; mean and spread are reported."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder, instead of output.name.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of this name.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew; an earlier run is moved to <name>.previous.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Run without Flower, in this one process.")] = False,
) -> None:
    """Make the silos where they are missing, then distil their teachers into one student, through Flower.

    Example: [bold]fedcpsc run configs/digits.yaml --set queries.answers_per_silo=2000 --name small[/]

    Example: [bold]fedcpsc run --from runs/small --set queries.answers_per_silo=3000 --name more[/]
    """
    with exit_codes():
        from fedcpsc.commands.run_command import Request, run_once, run_seeds

        existing = _existing(resume, overwrite)
        named: tuple[str, ...] = (*(overrides or ()), *_named(name))
        if start_from is not None:
            from fedcpsc.commands.start_from import starting_from

            config, named = starting_from(start_from, config, named, named=name is not None)
        if config is None:
            raise ConfigError(
                explain("CONFIG", None, "is missing", "give the YAML file of the run, or a run by --from")
            )
        request = Request(config, named, existing, local)
        if seeds is None:
            run_once(request, console())
        else:
            run_seeds(request, seeds, console())


app.command("sweep")(sweep)
app.command("refit")(refit)


@app.command(name="white-box")
def white_box(
    config: Annotated[Path, typer.Argument(help="YAML file of the run, see configs/white_box_*.", show_default=False)],
    *,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder, instead of output.name.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of this name.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew; an earlier run is moved to <name>.previous.")
    ] = False,
) -> None:
    """Distil one local teacher that is open to the student's maker: CPSC-DFKD as published. Not private.

    Example: [bold]fedcpsc white-box configs/white_box_digits.yaml[/]
    """
    with exit_codes():
        from fedcpsc.commands.white_box_command import WhiteBoxRequest, white_box_once

        named = (*(overrides or ()), *_named(name))
        white_box_once(WhiteBoxRequest(config, named, _existing(resume, overwrite)), console())


@app.command()
def audit(
    config: Annotated[Path, typer.Argument(help="YAML file of the audit, see configs/audit_*.", show_default=False)],
    *,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The audit's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the audit in its folder.")] = False,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Audit this finished run instead of making shadows alone.")
    ] = None,
    silos: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of that run's silos' folders.")] = None,
) -> None:
    """Attack teachers and students, and hold lower bounds on epsilon against the claims; exit 3 where one is exceeded.

    A claim that the audit could not have refuted is named before it begins and in its verdict (testable: false); the
    exit code stays 0: nothing was refuted.

    Example: [bold]fedcpsc audit configs/audit_digits.yaml[/]

    Example: [bold]fedcpsc audit configs/audit_digits_run.yaml --run runs/digits --silos silos/digits[/]
    """
    with exit_codes():
        from fedcpsc.commands.audit_command import AuditRequest, run_audit

        found = run_audit(AuditRequest(config, tuple(overrides or ()), out, resume, run, silos), console())
        if found["verdict"]["violation"]:
            raise typer.Exit(3)


@app.command()
def report(
    run: RunPath,
    *,
    out: Annotated[Path | None, typer.Option(help=f"The file to write, instead of {REPORT_FILE} in RUN.")] = None,
    audit: AuditPath = None,
    private: Annotated[
        Path | None,
        typer.Option(metavar="SILO_DIR", help="Add what the silo's owner alone may see; written into SILO_DIR."),
    ] = None,
) -> None:
    """Make one self-contained page of a run, finished or not.

    Example: [bold]fedcpsc report runs/digits --audit runs/digits/audit[/]
    """
    with exit_codes():
        from fedcpsc.report.page import write_report

        path = write_report(run, out, audit_dir=audit, silo_dir=private)
        console().print(f"left in {path}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def status(
    run: RunPath,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Plain JSON instead of words.")] = False,
    stalled_after: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Number of silent seconds after which the run counts as stalled."),
    ] = None,
) -> None:
    """Say how a run does, while it goes on and after; exit 1 where it has failed, 3 where it has stalled.

    Example: [bold]fedcpsc status runs/digits --json[/]
    """
    with exit_codes():
        with _nothing_collected():
            from fedcpsc.commands.status_words import exit_code, in_words
            from fedcpsc.runs.health import read_health

        health = read_health(run, stalled_after)
        for line in [json.dumps(asdict(health))] if as_json else in_words(health):
            typer.echo(line)
        raise typer.Exit(exit_code(health))


@app.command()
def export(
    run: RunPath,
    *,
    file_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="onnx: network and weights, for other runtimes; torch-export: the same, for torch.export.load; "
            "safetensors: weights alone, to load into the architecture.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write, instead of export/ in RUN (with --unlabelled, export-unlabelled/)."),
    ] = None,
    audit: AuditPath = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURES",
            help="Pictures without labels, as those that the student is to be used on: its class biases are fitted to"
            " them. A folder of picture files, or a parquet file; nobody else sees them.",
        ),
    ] = None,
    class_shares: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file that says how often each class occurs among them, a line CLASS: NUMBER for each; without"
            " it every class is taken to be as frequent as every other.",
        ),
    ] = None,
) -> None:
    """Write a finished run's student in a format that others open, with a model card; checked on 1,000 inputs.

    Example: [bold]fedcpsc export runs/digits --format onnx[/]

    Example: [bold]fedcpsc export runs/hands --format onnx --unlabelled my/pictures[/]
    """
    with exit_codes():
        from fedcpsc.export.export_student import export_run

        def tell(line: str) -> None:
            console().print(line, markup=False, highlight=False, soft_wrap=True)

        for path in export_run(
            run, file_format, out, audit_dir=audit, unlabelled=unlabelled, class_shares=class_shares, tell=tell
        ):
            tell(f"left in {path}")


app.command("bench")(bench)
mount(app)  # here, so that what begins a run comes first in the help
app.add_typer(deploy_app, name="deploy")
app.add_typer(bank_app, name="bank")


def main() -> None:
    """Entry point of the `fedcpsc` command."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it looks into every installed package
    signal.signal(signal.SIGTERM, _stop)  # so that a terminated run takes its processes along
    with last_resort():
        app()


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """For imports of a quick command: nothing of them is garbage, and to look for some takes a tenth of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
