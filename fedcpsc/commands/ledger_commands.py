# SPDX-License-Identifier: Apache-2.0
"""The owner's commands around the ledger, as a typer app for the command line to mount: `fedcpsc ledger ...`."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcpsc.commands.owner_words import Json, SiloDir, explain_errors, say
from fedcpsc.errors import ConfigError, explain

if TYPE_CHECKING:
    from fedcpsc.ledger.ledger import Ledger
    from fedcpsc.ledger.reading import LedgerReader

__all__ = ["ledger_app"]

# what a command needs is imported when it is called: `fedcpsc --help` must wait for none of it

ledger_app = typer.Typer(
    help="The silo's durable record of every charge and reply.", no_args_is_help=True, suggest_commands=False
)

Source = Annotated[
    Path, typer.Argument(help="The silo's folder, or a ledger's file such as a backup.", show_default=False)
]
Why = Annotated[str, typer.Option("--reason", help="Reason, which the ledger records.")]


class Form(StrEnum):
    """How rows are written."""

    JSONL = "jsonl"
    CSV = "csv"


@ledger_app.command("init")
def init(silo_dir: SiloDir) -> None:
    """Begin the ledger of a population that never had one, with the budget of its policy. Never replaces one.

    Example: [bold]fedcpsc ledger init /srv/silo[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.opening import begin_ledger
        from fedcpsc.ledger.ledger import LEDGER_FILE

        begin_ledger(silo_dir).close()
        typer.echo(f"begun: {silo_dir / LEDGER_FILE}")


@ledger_app.command("show")
def show(
    silo_dir: Source,
    as_json: Json = False,
    owner: Annotated[
        bool,
        typer.Option(
            "--owner", help="Show also the epsilon that gnmax spent on the real votes: itself private, show nobody."
        ),
    ] = False,
) -> None:
    """What was spent, and what is left. Works on read-only media, and beside a running gatekeeper.

    Example: [bold]fedcpsc ledger show /srv/silo --json[/]
    """
    with explain_errors(), contextlib.closing(_read(silo_dir)) as ledger:
        from fedcpsc.gatekeeper.ledger_words import ledger_facts

        facts = ledger_facts(ledger)
        if owner:
            from fedcpsc.gatekeeper.owner_account import OWNER_FILE, OwnerAccount

            facts["epsilon_realised_private"] = OwnerAccount(ledger.path.parent / OWNER_FILE).epsilon(facts["delta"])
        shown: dict[str, object] = {**facts}
        if not as_json:
            shown["backup"] = f"fedcpsc ledger backup {silo_dir} FILE, on another volume; never cp"
            if facts["epsilon_spent"] is None:  # which is no small epsilon
                shown["epsilon_spent"] = "infinite: nothing bounds what left without a guarantee"
                del shown["epsilon_by"]
        say(shown, as_json)


@ledger_app.command("verify")
def verify(silo_dir: Source, as_json: Json = False) -> None:
    """Check every row, every stored reply and the high-water mark; exit 1 at the first fault. Changes nothing.

    Example: [bold]fedcpsc ledger verify /srv/silo[/]
    """
    with explain_errors(), contextlib.closing(_read(silo_dir)) as ledger:
        from fedcpsc.gatekeeper.ledger_words import clock_words, mark_words

        status = ledger.verify()
        clock, state = [clock_words(row) for row in ledger.clock_events()], mark_words(ledger.mark_state())
        say(
            {"sound": True, "events": status.events, "head": status.head, "clock_events": clock, "mark": state}, as_json
        )


@ledger_app.command("export")
def export(
    silo_dir: Source,
    form: Annotated[
        Form, typer.Option("--format", help="jsonl: one JSON object a row, for programs; csv: for a spreadsheet.")
    ] = (Form.JSONL),
    raw: Annotated[bool, typer.Option("--raw", help="Show the columns as they are stored and hashed.")] = False,
) -> None:
    """Every row, oldest first: time, what it was, images, mechanism, and what was given up to there.

    Example: [bold]fedcpsc ledger export /srv/silo --format csv > ledger.csv[/]
    """
    with explain_errors(), contextlib.closing(_read(silo_dir)) as ledger:
        from fedcpsc.gatekeeper.ledger_words import as_csv, as_jsonl, readable

        rows = ledger.export() if raw else readable(ledger.export())
        for line in as_csv(rows) if form is Form.CSV else as_jsonl(rows):
            typer.echo(line)


@ledger_app.command("raise")
def raise_(
    silo_dir: SiloDir,
    answers: Annotated[int | None, typer.Option(help="New cap on images answered.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="New cap on epsilon of noisy answers, at the ledger's delta.")
    ] = None,
    note: Annotated[str, typer.Option(help="Reason, which the ledger records.")] = "",
) -> None:
    """Raise the budget: a row that stays. Only the owner of the ledger's file can.

    Example: [bold]fedcpsc ledger raise /srv/silo --answers 40000 --note "board of 3 May"[/]
    """
    with explain_errors(), contextlib.closing(_open(silo_dir)) as ledger:
        if answers is None and epsilon is None:
            raise ConfigError(explain("--answers, --epsilon", None, "nothing to raise", "give one of them"))
        from fedcpsc.gatekeeper.ledger_words import ledger_facts
        from fedcpsc.ledger.budget import MU2_UNIT
        from fedcpsc.privacy.accounting import gaussian_mu

        delta = ledger.status().delta
        mu2 = None if epsilon is None else int(gaussian_mu(epsilon, delta) ** 2 * MU2_UNIT)
        ledger.raise_budget(answers=answers, mu2=mu2, note=note)
        say(ledger_facts(ledger), False)


@ledger_app.command("mark")
def mark(silo_dir: SiloDir) -> None:
    """Declare the ledger that is there to be the newest, and begin its high-water mark there. A row records it.

    Example: [bold]fedcpsc ledger mark /srv/silo[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.ledger_words import mark_words
        from fedcpsc.ledger.budget import MU2_UNIT
        from fedcpsc.ledger.clock import iso_time

        with contextlib.closing(_read(silo_dir)) as found:
            before, state = found.status(), found.mark_state()
        with contextlib.closing(_open(silo_dir, new_mark=True)) as ledger:
            if state.kind != "missing":
                typer.echo(f"nothing to do: {mark_words(state)}")
                return
            typer.echo(
                f"accepted as the newest: row {before.events} of {iso_time(before.time_ns)}, with"
                f" {before.spent.answers} answers and mu2 {before.spent.mu2 / MU2_UNIT:.6g} spent. Whatever was spent"
                f" after it elsewhere is not counted. Recorded; marked at row {ledger.status().events} ({state.path})"
            )


@ledger_app.command("backup")
def backup(silo_dir: SiloDir, file: Annotated[Path, typer.Argument(help="New file of the backup.")]) -> None:
    """Copy the ledger, whole and verified, also while its gatekeeper runs. Never overwrites a file.

    Example: [bold]fedcpsc ledger backup /srv/silo /mnt/backup/ledger-2026-11-29.sqlite[/]
    """
    with explain_errors():
        from fedcpsc.ledger.backup import back_up
        from fedcpsc.ledger.clock import iso_time
        from fedcpsc.ledger.ledger import LEDGER_FILE

        status = back_up(silo_dir / LEDGER_FILE, file)
        newest = f"row {status.events} of {iso_time(status.time_ns)}"
        typer.echo(f"backed up and verified: {file}, {newest}, population {status.population}")


@ledger_app.command("restore")
def restore(
    silo_dir: SiloDir,
    file: Annotated[Path, typer.Argument(help="File that `fedcpsc ledger backup` made.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Take a backup that lacks rows, and spend all that it has left.")
    ] = False,
    reason: Why = "",
) -> None:
    """Put a backup back, where the ledger was lost or on a new machine. What is replaced is kept in past/.

    Example: [bold]fedcpsc ledger restore /srv/silo /mnt/backup/ledger-2026-11-29.sqlite[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.mechanisms.dp_sgd import DpSgdPolicy
        from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
        from fedcpsc.ledger.backup import restore_backup
        from fedcpsc.ledger.ledger import LEDGER_FILE
        from fedcpsc.ledger.mark import HighWaterMark
        from fedcpsc.teachers.manifest import load_manifest, load_old_manifest

        old, policy = load_old_manifest(silo_dir), load_policy(silo_dir / POLICY_FILE)
        manifest = load_manifest(silo_dir) if old is None else old.migrated(old.dataset_id, "record")
        done = restore_backup(
            silo_dir / LEDGER_FILE,
            file,
            manifest.population,
            HighWaterMark(mark_path(silo_dir, policy)),
            unit=manifest.unit,
            accept_loss=accept_loss,
            reason=reason,
            trained=isinstance(policy.mechanism, DpSgdPolicy),
        )
        for line in done:
            typer.echo(line)


def _read(source: Path) -> LedgerReader:
    """The ledger of a silo's folder, also of one that must be migrated, or the file itself, for reading."""
    from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
    from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
    from fedcpsc.teachers.manifest import load_manifest, load_old_manifest

    if source.is_file():
        return Ledger.read(source)
    mark = mark_path(source, load_policy(source / POLICY_FILE))
    if load_old_manifest(source) is None:
        population = load_manifest(source).population
        return Ledger.read(source / LEDGER_FILE, population=population, high_water_mark=mark)
    ledger = Ledger.read(source / LEDGER_FILE, high_water_mark=mark)
    migrate = f"fedcpsc ledger migrate {source} --population NAME"
    typer.echo(f"of an earlier version: read as it is; before anything is answered or trained, {migrate}", err=True)
    return ledger


def _open(silo_dir: Path, new_mark: bool = False) -> Ledger:
    from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
    from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
    from fedcpsc.teachers.manifest import load_manifest

    policy = load_policy(silo_dir / POLICY_FILE)
    population = load_manifest(silo_dir).population
    mark = mark_path(silo_dir, policy)
    return Ledger.open(silo_dir / LEDGER_FILE, population, high_water_mark=mark, new_mark=new_mark)
