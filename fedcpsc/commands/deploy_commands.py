# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc deploy ...`: what several machines need, and the same on one, for trying."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcpsc.commands.exit_codes import exit_codes
from fedcpsc.commands.override_option import Overrides
from fedcpsc.commands.terminal import console

__all__ = ["deploy_app"]

# what a command needs is imported when it is called: `fedcpsc --help` must wait for none of it

deploy_app = typer.Typer(
    help="A federation of real processes: its certificates, its checks, and all of it on this machine.",
    no_args_is_help=True,
    suggest_commands=False,
)


@deploy_app.command("local")
def local(
    config: Annotated[Path, typer.Argument(help="YAML file of the run, see configs/.")] = Path("configs/digits.yaml"),
    *,
    silos: Annotated[int | None, typer.Option(min=1, help="Number of silos, instead of silos.count.")] = None,
    overrides: Overrides = None,
    folder: Annotated[
        Path,
        typer.Option(
            help="Folder of certificates, keys, logs and runs; an earlier deployment's are removed, its runs stay."
        ),
    ] = Path("runs/deployment"),
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of the SuperLink on loopback, instead of a free one.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Do the run, then take everything down.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Do as --run, but go on with the last run of this name in the folder.")
    ] = False,
) -> None:
    """Bring up a federation on this machine as on several: TLS, authentication, each gatekeeper its own process.

    Stays until Ctrl-C, which takes everything down.

    Example: [bold]fedcpsc deploy local --silos 3 configs/digits.yaml[/]
    """
    with exit_codes(interrupted="everything is down"):
        from fedcpsc.commands.deploy_local import LocalDeployment, deploy_local
        from fedcpsc.commands.run_command import Request

        request = Request(config, tuple(overrides or ()))
        try:
            deploy_local(LocalDeployment(request, folder, silos, port, run, resume), console())
        except KeyboardInterrupt:
            if run or resume:
                raise
            console().print("everything is down")  # how it ends when all is well


@deploy_app.command("certificate")
def certificate(
    hosts: Annotated[
        list[str], typer.Argument(help="Names and addresses under which silos reach the server.", show_default=False)
    ],
    *,
    folder: Annotated[Path, typer.Option(help="Folder of the authority, which is made where there is none.")] = Path(),
    days: Annotated[int, typer.Option(min=1, max=3650, help="Number of days until the certificate ends.")] = 365,
) -> None:
    """Make the server's certificate (link.pem, link.key), and first an authority (ca.crt, ca.key) where there is none.

    A renewed one replaces link.pem and link.key; the silos keep their ca.crt.

    Example: [bold]fedcpsc deploy certificate link.example.org[/]
    """
    with exit_codes():
        from fedcpsc.launch.deployment.certificates import (
            AUTHORITY,
            AUTHORITY_KEY,
            SERVER,
            make_authority,
            make_server_certificate,
        )
        from fedcpsc.launch.deployment.hosts import host_name

        names = [host_name(host, "HOSTS") for host in hosts]
        if not (folder / AUTHORITY).exists() and not (folder / AUTHORITY_KEY).exists():
            make_authority(folder)
            _say(
                f"made {folder / AUTHORITY}: give it to every silo; keep {folder / AUTHORITY_KEY} where no one else is"
            )
        ends = make_server_certificate(folder, names, days)
        shown = [name if host.isascii() else f"{name} ({host})" for host, name in zip(hosts, names, strict=True)]
        _say(f"made {folder / SERVER}: for {', '.join(shown)} and localhost, until {ends:%F}")


@deploy_app.command("key")
def key(path: Annotated[Path, typer.Argument(help="The private key to write; the public one is PATH.pub.")]) -> None:
    """Make a SuperNode's key pair.

    Example: [bold]fedcpsc deploy key node[/]
    """
    with exit_codes():
        from fedcpsc.launch.deployment.certificates import make_supernode_key

        make_supernode_key(path)
        _say(f"made {path}, which stays here, and {path}.pub: give it to the server")


@deploy_app.command("check")
def check(
    superlink: Annotated[str, typer.Argument(help="Address of the server, HOST:PORT.", show_default=False)],
    *,
    root_certificates: Annotated[Path, typer.Option(help="The authority's certificate.")] = Path("ca.crt"),
    socket: Annotated[Path | None, typer.Option(help="The gatekeeper's socket.")] = None,
    silo_dir: Annotated[
        Path | None,
        typer.Option(help="The silo's folder, where no gatekeeper runs yet: its teacher is tried, uncharged."),
    ] = None,
) -> None:
    """At a silo: does the server answer as it should, with a certificate to trust, and does the gatekeeper or teacher?

    Exits with 1 where not, and says why; Flower's SuperNode would try again for ever.

    Example: [bold]fedcpsc deploy check link.example.org:8443 --socket /run/fedcpsc/silo.sock[/]
    """
    with exit_codes():
        from fedcpsc.launch.deployment.checks import check_gatekeeper, check_link, is_out_of_service

        if silo_dir is not None:
            from fedcpsc.gatekeeper.silo_trial import try_in_folder

            trial = try_in_folder(silo_dir)
            _say(f"teacher in {silo_dir}: {trial}")
            for warning in trial.warnings:
                _say(f"warning: {warning}")
        if socket is not None:
            said = check_gatekeeper(socket)
            _say(f"gatekeeper of {said.silo}: answers at {socket}, protocol {said.version}")
            if is_out_of_service(socket):
                _say("warning: its teacher failed on the last query, see its log: it answers nothing new for now")
        link = check_link(superlink, root_certificates)
        _say(f"server {link.address}: its certificate is trusted until {link.ends:%F}")
        if link.control_open:
            _say("warning: whoever can connect there may start runs; see 'Let nobody but SuperNodes in' in the docs")


def _say(line: str) -> None:
    console().print(line, markup=False, highlight=False, soft_wrap=True)
