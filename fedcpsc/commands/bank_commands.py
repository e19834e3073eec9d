# SPDX-License-Identifier: Apache-2.0
"""The commands of a run's answers as a data set: `bank export`, `bank check` and `bank import`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.commands.exit_codes import exit_codes
from fedcpsc.commands.terminal import console

if TYPE_CHECKING:
    from fedcpsc.answer_set.facts import AnswerSetFacts

__all__ = ["bank_app"]

bank_app = typer.Typer(help="A run's answers as a data set for others.", no_args_is_help=True)


@bank_app.command("export")
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, finished or not.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to make; new or empty.", show_default=False)],
    *,
    file_format: Annotated[
        SetFormat,
        typer.Option(
            "--format",
            help="parquet: pictures and columns as the Hugging Face hub has them, for datasets.load_dataset;"
            " safetensors: plain arrays.",
        ),
    ] = SetFormat.PARQUET,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="SILO", help="Name of a silo to leave out, also of the targets; may be given again."),
    ] = None,
    silo_answers: Annotated[
        Literal["full", "none"],
        typer.Option(
            help="full: what each silo answered, and the targets; a run can begin with it. none: the targets alone, for"
            " training elsewhere; they tell less of a single silo."
        ),
    ] = "full",
) -> None:
    """Write a run's images, answers and targets as a data set, with a card, where the silos' policies allow it.

    A silo that does not say share_answers: true is named, and nothing is written.

    Example: [bold]fedcpsc bank export runs/digits digits-answers --exclude silo-2[/]
    """
    with exit_codes("stopped; nothing was written"):
        from fedcpsc.export.answers import export_answers

        full = silo_answers == "full"
        facts = export_answers(run, out, file_format, exclude=tuple(exclude or ()), silo_answers=full)
        _say(*_in_words(facts), f"left in {out}")


@bank_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="A folder that `bank export` wrote.", show_default=False)],
) -> None:
    """Read a data set of answers whole, hold it against what it says of itself, and say what it holds.

    Example: [bold]fedcpsc bank check digits-answers[/]
    """
    with exit_codes("stopped"):
        from fedcpsc.answer_set.facts import read_facts
        from fedcpsc.answer_set.reading import read_rows

        facts = read_facts(folder)
        for _ in read_rows(folder, facts):
            pass
        _say(*_in_words(facts), f"every row of {folder} is as it should be")


@bank_app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder that `bank export` wrote.", show_default=False)],
    run: Annotated[Path, typer.Argument(help="The run's folder to make; new or empty.", show_default=False)],
) -> None:
    """Make a run's folder of a data set of answers: `refit` fits to them, and `run --from` goes on with them.

    Example: [bold]fedcpsc bank import digits-answers runs/imported[/]

    Example: [bold]fedcpsc refit runs/imported --set student.width=16[/]
    """
    with exit_codes("stopped; no bank was left"):
        from fedcpsc.answer_set.import_bank import import_bank

        _say(*_in_words(import_bank(folder, run)), f"left in {run}, as a run that has asked all this and not finished")


def _in_words(facts: AnswerSetFacts) -> Iterator[str]:
    shape = "x".join(map(str, facts.image_shape))
    whose = f"of the run {facts.run.name}" + ("" if facts.run.finished else ", which had not finished")
    yield f"{facts.rows:,} images of {shape}, {facts.classes} classes, {whose}"
    for silo in facts.silos:
        said = silo.said
        private = f"epsilon {said.claim.epsilon:.4g} per {said.claim.unit}" if said.claim.dp else "not private"
        yield f"  {silo.name}: {silo.answers:,} answered ({private})"
    if not facts.with_answers:
        yield "  targets alone, without the silos' answers"
    left_out = {
        "silos": facts.silos_left_out,
        "images that none of these answered": facts.images_left_out,
        "classes that none of these knows": facts.classes_left_out,
    }
    if any(left_out.values()):
        yield "  left out: " + ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)


def _say(*lines: str) -> None:
    for line in lines:
        console().print(line, markup=False, highlight=False, soft_wrap=True)
