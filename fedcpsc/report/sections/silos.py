# SPDX-License-Identifier: Apache-2.0
"""The silos: what they were asked, what their owners still allow, who had how much to say."""

from __future__ import annotations

from fedcpsc.aggregation.rule import RULES
from fedcpsc.report.blocks import (
    MOST_CLASSES,
    Block,
    Cell,
    Chart,
    Note,
    Section,
    Table,
    class_label,
    folded_where_long,
    share_cell,
)
from fedcpsc.report.figures import Series, lines
from fedcpsc.report.query_pictures import query_table
from fedcpsc.runs.layout import DETAILS_FILE
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.read import RunFacts, Silo

__all__ = ["budgets", "contributions", "queries"]

_MOST_LINES = 8  # of a chart


def queries(run: RunFacts) -> Section:
    """What was asked."""
    title = "What the silos were asked"
    table = None if run.bank is None else query_table(run.bank)
    if table is None:
        return Section("queries", title, (Note("The run's folder holds no answered images."),))
    text = "The server invented these images; none comes from private data. Classes are what the silos together saw."
    return Section("queries", title, (Note(text), table))


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
    table = Table.of("What each silo answered, and what its owner still allows", columns, rows)
    blocks: list[Block] = [folded_where_long(table)]
    if excluded := run.config.aggregation.exclude:
        text = "Excluded by the run's configuration, and so not asked, and no answer used"
        blocks.insert(0, Note(f"{text}: {', '.join(excluded)}."))
    recorded = [line for line in run.rounds if "silos" in line]
    if recorded:
        blocks.append(_burn_down(recorded))
    return Section("budgets", title, tuple(blocks))


def contributions(run: RunFacts) -> Section:
    """Who had how much to say."""
    title = "Who contributed what"
    details = run.details
    if details is None:
        return Section("contributions", title, (Note(f"The run's folder holds no {DETAILS_FILE}."),))
    rule = run.config.aggregation.rule
    if not run.simulated and RULES.get(rule).may_tell_label_mix:
        text = (
            f"Not shown: under {rule} a silo's weight in each class discloses its label mix. It was sent to the server "
            "alone, and this page may travel."
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
    columns = ("silo", "all", *(class_label(names, k) for k in shown))
    text = (
        f"Over the {images:,} images answered, by the class the silos agreed on. Equal silos would have "
        f"{100 / max(1, len(details.weights)):.0f} % each."
    )
    return Section("contributions", title, (Note(text), folded_where_long(Table(caption, columns, rows, dense=True))))


def _burn_down(recorded: list[MetricsLine]) -> Chart:
    """Of many silos, those with the least left; silos that go alike share a line."""
    paths: dict[tuple[tuple[float, float], ...], list[str]] = {}
    figures = [(line["round"], line["silos"]) for line in recorded]
    silos = list(figures[-1][1])
    for silo in silos:
        path = tuple((float(number), float(left[silo]["answers_left"])) for number, left in figures if silo in left)
        paths.setdefault(path, []).append(silo)
    shown = sorted(paths.items(), key=lambda item: item[0][-1][1])[:_MOST_LINES]
    series = [Series(_together(names), path) for path, names in shown]
    ending = [f"{_together(names)}: {path[-1][1]:,.0f}" for path, names in shown]
    description = "Left at the last round: " + "; ".join(ending) + "."
    if len(paths) > len(shown):
        description += f" Of {len(paths)} different courses the {len(shown)} with the least left are drawn."
    title = "What is left of each silo's budget"
    svg = lines("budget-chart", f"{title}. {description}", "round", "images left", series)
    heads = [f"round {number}" for number, _ in figures]
    rows = [
        (silo, *(f"{left[silo]['answers_left']:,}" if silo in left else "-" for _, left in figures)) for silo in silos
    ]
    if len(silos) <= _MOST_LINES:  # the many, be it silos or rounds, go down the page
        heads, rows = silos, [(head, *column) for head, *column in zip(heads, *(row[1:] for row in rows), strict=True)]
    return Chart(title, description, svg, Table.of("Images left, by round", ("", *heads), rows))


def _together(silos: list[str]) -> str:
    return ", ".join(silos) if len(silos) <= 2 else f"{silos[0]} to {silos[-1]} ({len(silos)} alike)"


def _state(silo: Silo) -> str:
    return f"no longer asked: {silo.stopped}" if silo.stopped else "answers"
