# SPDX-License-Identifier: Apache-2.0
"""How far each silo is believed: its reputation, its agreement with the others, and what speaks against it.

On which classes a silo is contradicted follows from where it is sure, and so may tell its label mix: only of a
simulation are they named, as each silo's weight in each class is. Reputation and agreement are one number a silo.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcpsc.report.blocks import Block, Note, Section, Table, class_label, folded_where_long
from fedcpsc.report.silos_by_round import SiloFigure, silos_by_round
from fedcpsc.runs.layout import DETAILS_FILE
from fedcpsc.runs.read import RunFacts, Silo
from fedcpsc.runs.suspicion import NO_TWO_AGREE, describe_suspicion, exclusion

__all__ = ["alarms_about_silos", "belief"]

_MOST_ALARMS = 5
_MOST_NAMED = 10  # classes
_BY_ROUND = SiloFigure(
    anchor="reputation-chart",
    title="Reputation of each silo",
    axis="reputation",
    caption="Reputation, by round",
    at_the_end="At the last round",
    lowest="the lowest reputation",
    show=lambda reputation: f"{reputation:.2f}",
    top=1.05,
    from_zero=True,
)
_HOW = (
    "Silos are compared by their answers alone: two agree where the images that one is surest of are also those of the "
    "other. A silo's reputation, from 0 to 1, multiplies its weight in the soft targets; one that some others "
    "understand keeps all of it. On a class on which the others contradict it a silo counts for little, whatever its "
    "reputation. All of this takes most silos to be honest, and proves nothing."
)


def belief(run: RunFacts) -> Section:
    """Who is believed how far, and why."""
    blocks: list[Block] = []
    if not run.silos:
        blocks.append(Note("No silo has joined yet."))
    elif run.not_judged == NO_TWO_AGREE:
        text = f"{NO_TWO_AGREE}, so that nobody can tell which of them to believe: all count alike"
        blocks.append(Note(f"{text[0].upper()}{text[1:]}."))
    elif run.not_judged is not None:
        blocks.append(Note(f"Not judged, because {run.not_judged}. All silos count as their aggregation rule has it."))
    elif not run.judged:
        blocks.append(Note("Not judged yet." if run.result is None else "Not recorded by the version that ran this."))
    if run.judged:
        blocks += [Note(_HOW), folded_where_long(_table(run)), *_about_classes(run)]
    figures = [
        (line["round"], {name: silo["reputation"] for name, silo in line["silos"].items() if "reputation" in silo})
        for line in run.rounds
        if "silos" in line
    ]
    figures = [(number, silos) for number, silos in figures if silos]
    if run.judged and figures:
        blocks.append(silos_by_round(_BY_ROUND, figures))
    return Section("belief", "How far each silo is believed", tuple(blocks))


def alarms_about_silos(run: RunFacts) -> Iterator[Note]:
    """What an operator should look at first: silos that are suspected, with what to do."""
    suspected = list(run.suspicions.items())
    for silo, why in suspected[:_MOST_ALARMS]:
        yield Note(f"{describe_suspicion(silo, why)}.", "Alarm")
    if suspected:
        others = len(suspected) - _MOST_ALARMS
        more = f"{others} more are suspected. " if others > 0 else ""
        whom = "it" if len(suspected) == 1 else "them"
        setting = exclusion([silo for silo, _ in suspected], run.config.aggregation.exclude)
        yield Note(
            f"{more}An honest silo that knows what few others do may look like this, too: ask its owner first. To "
            f"leave {whom} out, set {setting} and go on with --resume: the student is fitted anew, on the others' "
            "answers alone.",
            "What to do",
        )
    if run.not_judged == NO_TWO_AGREE:
        yield Note(
            "No two silos agree on what they see in the images. Which of them to believe is not known: ask their "
            "owners whether they mean the same classes, and look at the query images below.",
            "Alarm",
        )


def _table(run: RunFacts) -> Table:
    """The suspected first."""
    ranked = sorted(run.silos, key=lambda silo: silo.suspicion is None)
    rows = [
        (
            silo.id,
            "-" if silo.reputation is None else f"{silo.reputation:.2f}",
            _agreement(silo),
            _contradicted(run, silo),
            silo.suspicion or "nothing",
        )
        for silo in ranked
    ]
    columns = ("silo", "reputation", "agreement with the others", "contradicted on", "what speaks against it")
    return Table.of("Reputation and agreement of each silo, and what speaks against it", columns, rows, words=2)


def _agreement(silo: Silo) -> str:
    if silo.reputation is None:
        return "-"
    return "cannot be checked" if silo.agreement is None else f"{silo.agreement:.2f}"


def _contradicted(run: RunFacts, silo: Silo) -> str:
    if run.details is None or run.details.contradicted is None:
        return "-"
    classes = run.details.contradicted.get(silo.id, ())
    if not classes:
        return "no class"
    if not run.simulated:
        return f"{len(classes)} of its classes"
    named = ", ".join(class_label(run.details.class_names, k) for k in classes[:_MOST_NAMED])
    return named + (f" and {len(classes) - _MOST_NAMED} more" if len(classes) > _MOST_NAMED else "")


def _about_classes(run: RunFacts) -> Iterator[Note]:
    if any(silo.agreement is None for silo in run.silos):
        yield Note("A silo that shares no class with another cannot be checked: it counts in full on its own classes.")
    details = run.details
    if details is None:
        yield Note("On which classes a silo is contradicted is written when a run ends.")
    elif not run.simulated and any((details.contradicted or {}).values()):
        text = (
            f"are not named here, for this page may travel: they may tell a silo's label mix. {DETAILS_FILE} has them"
        )
        yield Note(f"The classes on which a silo is contradicted {text}.")
