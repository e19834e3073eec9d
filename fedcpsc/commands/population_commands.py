# SPDX-License-Identifier: Apache-2.0
"""The owner's commands that name a silo's population: `ledger migrate` and `ledger population`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from fedcpsc.commands.ledger_commands import ledger_app
from fedcpsc.commands.owner_words import SiloDir, explain_errors

__all__ = ["Unit", "migrate", "population"]


class Unit(StrEnum):
    """What one guarantee protects."""

    RECORD = "record"
    PERSON = "person"


@ledger_app.command("migrate")
def migrate(
    silo_dir: SiloDir,
    population: Annotated[str, typer.Option(help="Name of the population whose records the silo holds.")],
    unit: Annotated[
        Unit,
        typer.Option(
            help="What one guarantee protects. record: one image; person: all images of one person, only where "
            "nothing was released yet."
        ),
    ] = Unit.RECORD,
    left_out: Annotated[
        list[str] | None,
        typer.Option("--except", help="File in past/ whose records are other people's: it does not count."),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Reason why the files after --except do not count, which the ledger records.")
    ] = "",
) -> None:
    """Bring a silo of an earlier version to one population's budget; all that was spent in its ledgers is kept.

    Example: [bold]fedcpsc ledger migrate /srv/silo --population "clinic north"[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.population import migrate as run

        name: Literal["record", "person"] = "person" if unit is Unit.PERSON else "record"
        for sentence in run(silo_dir, population, name, left_out=left_out or [], reason=reason):
            typer.echo(sentence)


@ledger_app.command("population")
def population(
    silo_dir: SiloDir,
    name: Annotated[str, typer.Argument(help="Name of the other population.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason, which the ledger records.")],
) -> None:
    """Name another population for the folder: its own budget, on the record. The old ledger is kept.

    Example: [bold]fedcpsc ledger population /srv/silo "clinic south" --reason "other patients, board of 3 May"[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.population import change_population

        for sentence in change_population(silo_dir, name, reason):
            typer.echo(sentence)
