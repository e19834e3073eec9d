# SPDX-License-Identifier: Apache-2.0
"""The silos: what they were asked, what their owners still allow, who had how much to say."""

from __future__ import annotations

from fedcpsc.aggregation.rule import RULES
from fedcpsc.report.blocks import (
    MOST_CLASSES,
    Block,
    Cell,
    Note,
    Section,
    Table,
    folded_where_long,
    share_cell,
    short_label,
    stand_upright,
)
from fedcpsc.report.query_pictures import query_blocks
from fedcpsc.report.silos_by_round import SiloFigure, silos_by_round
from fedcpsc.runs.layout import DETAILS_FILE, RESULT_FILE
from fedcpsc.runs.read import RunFacts, Silo

__all__ = ["budgets", "contributions", "queries"]

_LEFT = SiloFigure(
    anchor="budget-chart",
    title="What is left of each silo's budget",
    axis="images left",
    caption="Images left, by round",
    at_the_end="Left at the last round",
    lowest="the least left",
    show=lambda images: f"{images:,.0f}",
)


def queries(run: RunFacts) -> Section:
    """What was asked."""
    title = "What the silos were asked"
    blocks = [] if run.bank is None else list(query_blocks(run.bank))
    if not blocks:
        return Section("queries", title, (Note("The run's folder holds no answered images."),))
    text = "The server invented these images; none comes from private data. Classes are what the silos together saw."
    return Section("queries", title, (Note(text), *blocks))


def budgets(run: RunFacts) -> Section:
    """What every silo has left."""
    title = "Budgets"
    if not run.silos:
        return Section("budgets", title, (Note("No silo has joined yet."),))
    rows = [
        (
            silo.id,
            f"{silo.answers:,}",
            "not recorded" if silo.answers_left is None else f"{silo.answers_left:,}",
            _state(silo),
        )
        for silo in run.silos
    ]
    columns = ("silo", "images answered in this run", "left of its own budget", "state")
    table = Table.of("What each silo answered, and what its owner still allows", columns, rows, words=1)
    blocks: list[Block] = [folded_where_long(table)]
    if excluded := run.config.aggregation.exclude:
        text = "Excluded by the run's configuration, and so not asked, and no answer used"
        blocks.insert(0, Note(f"{text}: {', '.join(excluded)}."))
    if run.turned_away:
        blocks.append(Note(_turned_away(run), "Not let in"))
    recorded = [(line["round"], line["silos"]) for line in run.rounds if "silos" in line]
    if recorded:
        left = [(number, {name: silo["answers_left"] for name, silo in silos.items()}) for number, silos in recorded]
        blocks.append(silos_by_round(_LEFT, left))
    return Section("budgets", title, tuple(blocks))


def contributions(run: RunFacts) -> Section:
    """Who had how much to say."""
    title = "Who contributed what"
    details = run.details
    if details is None:
        return Section("contributions", title, (Note(f"The run's folder holds no {DETAILS_FILE}."),))
    rule = run.config.aggregation.rule
    if not run.simulated and (RULES.get(rule).may_tell_label_mix or run.judged):
        under = rule if RULES.get(rule).may_tell_label_mix else f"{rule} with aggregation.robust"
        text = (
            f"Not shown: under {under} a silo's weight in each class discloses its label mix. It was sent to the "
            "server alone, and this page may travel."
        )
        return Section("contributions", title, (Note(text),))
    images = details.images.sum()
    overall = {silo: float((w * details.images).sum() / max(images, 1)) for silo, w in details.weights.items()}
    few = len(details.images) <= MOST_CLASSES
    shown = range(len(details.images)) if few else ()
    names = details.class_names
    rows = tuple(
        (Cell(silo), share_cell(overall[silo]), *(share_cell(float(weights[k])) for k in shown))
        for silo, weights in details.weights.items()
    )
    caption = f"Mean weight of each silo's answers in the soft targets, in % ({rule})"
    columns = ("silo", "all", *(short_label(names, k) for k in shown))
    text = (
        f"Over the {images:,} images answered, by the class the silos agreed on. Equal silos would have "
        f"{100 / max(1, len(details.weights)):.0f} % each."
    )
    table = Table(caption, columns, rows, dense=True, upright=stand_upright(columns))
    return Section("contributions", title, (Note(text), folded_where_long(table)))


def _turned_away(run: RunFacts) -> str:
    """Reasons may quote what a silo said to the server alone, and the page may travel."""
    if run.simulated:
        return "; ".join(f"{name} ({why})" for name, why in run.turned_away.items()) + "."
    where = f"the reasons, which may quote what each said of itself, are in the run's {RESULT_FILE} and fedcpsc status"
    return f"{', '.join(run.turned_away)}; {where}."


def _state(silo: Silo) -> str:
    return f"no longer asked: {silo.stopped}" if silo.stopped else "answers"
