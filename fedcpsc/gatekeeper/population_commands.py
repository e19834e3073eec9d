"""The owner's commands that name a silo's population: `ledger migrate` and `ledger population`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["Unit", "add_population_commands"]

SiloDir = Annotated[Path, typer.Argument(help="The silo's folder.", show_default=False)]


class Unit(StrEnum):
    """What one guarantee protects."""

    RECORD = "record"
    PERSON = "person"


def add_population_commands(app: typer.Typer, explained: Callable[[], AbstractContextManager[None]]) -> None:
    """Adds both commands to the command group of the ledger.

    Args:
        app: the command group.
        explained: context that turns errors into words and an exit code.
    """

    @app.command("migrate")
    def migrate(
        silo_dir: SiloDir,
        population: Annotated[str, typer.Option(help="Name of the population whose records the silo holds.")],
        unit: Annotated[
            Unit, typer.Option(help="What one guarantee protects; person only where nothing was released yet.")
        ] = Unit.RECORD,
        left_out: Annotated[
            list[str] | None,
            typer.Option("--except", help="File in past/ whose records are other people's: it does not count."),
        ] = None,
        reason: Annotated[str, typer.Option(help="Why the files after --except do not count, for the record.")] = "",
    ) -> None:
        """Bring a silo of an earlier version to one population's budget; all that was spent in its ledgers is kept.

        Example: [bold]fedcpsc ledger migrate /srv/silo --population "clinic north"[/]
        """
        with explained():
            from fedcpsc.gatekeeper.population import migrate as run  # noqa: PLC0415 - brings scipy

            name: Literal["record", "person"] = "person" if unit is Unit.PERSON else "record"
            for sentence in run(silo_dir, population, name, left_out=left_out or [], reason=reason):
                typer.echo(sentence)

    @app.command("population")
    def population(
        silo_dir: SiloDir,
        name: Annotated[str, typer.Argument(help="Name of the other population.", show_default=False)],
        reason: Annotated[str, typer.Option(help="Why, for the record.")],
    ) -> None:
        """Name another population for the folder: its own budget, on the record. The old ledger is kept.

        Example: [bold]fedcpsc ledger population /srv/silo "clinic south" --reason "other patients, board of 3 May"[/]
        """
        with explained():
            from fedcpsc.gatekeeper.population import change_population  # noqa: PLC0415 - brings scipy

            for sentence in change_population(silo_dir, name, reason):
                typer.echo(sentence)
