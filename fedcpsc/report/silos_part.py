"""The report's second half: budgets, mistakes, contributions and time."""

from __future__ import annotations

import numpy as np

from fedcpsc.aggregation.rule import RULES
from fedcpsc.report.blocks import (
    LONG,
    Block,
    Cell,
    Chart,
    Folded,
    Note,
    Section,
    Table,
    duration,
    folded_where_long,
    percent,
    share_cell,
)
from fedcpsc.report.figures import Series, bars, lines
from fedcpsc.report.time_line import time_line_chart
from fedcpsc.runs.layout import DETAILS_FILE
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.read import Counts, RunFacts, Silo

__all__ = ["budgets", "confusions", "contributions", "times"]

_MOST_LINES = 8  # of a chart
_MOST_CLASSES = 20  # of a table that has a column for each
_MISTAKES = 10


def budgets(run: RunFacts) -> Section:
    """What every silo has left."""
    title = "Budgets"
    if not run.silos:
        return Section("budgets", title, (Note("No silo has joined yet."),))
    rows = [
        (silo.id, f"{silo.answers:,}", "not recorded" if silo.left is None else f"{silo.left:,}", _state(silo))
        for silo in run.silos
    ]
    columns = ("silo", "images answered in this run", "left of its own budget", "state")
    table = Table.of("What each silo answered, and what its owner still allows", columns, rows)
    blocks: list[Block] = [folded_where_long(table)]
    told = [line for line in run.rounds if "silos" in line]
    if told:
        blocks.append(_burn_down(told))
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
            f"Not shown: under {rule} a silo's weight in each class tells of its label mix. It was told to the server "
            "alone, and this page may travel."
        )
        return Section("contributions", title, (Note(text),))
    images = details.images.sum()
    overall = {silo: float((w * details.images).sum() / max(images, 1)) for silo, w in details.weights.items()}
    few = len(details.images) <= _MOST_CLASSES
    shown = range(len(details.images)) if few else ()
    rows = tuple(
        (Cell(silo), share_cell(overall[silo]), *(share_cell(float(weights[k])) for k in shown))
        for silo, weights in details.weights.items()
    )
    caption = f"Mean weight of each silo's answers in the soft targets, in % ({rule})"
    columns = ("silo", "all", *(f"class {k}" for k in shown))
    text = (
        f"Over the {images:,} images answered, by the class the silos agreed on. Equal silos would have "
        f"{100 / max(1, len(details.weights)):.0f} % each."
    )
    return Section("contributions", title, (Note(text), folded_where_long(Table(caption, columns, rows, dense=True))))


def confusions(run: RunFacts) -> Section:
    """Who mistakes what for what."""
    title = "Confusion"
    details = run.details
    if details is None or details.student is None:
        return Section("confusion", title, (Note("Nothing was measured: no held-out images, or not finished."),))
    blocks: list[Block] = [Note("Rows are true classes, columns what was said; in % of the row's images.")]
    blocks.append(_confusion("the student", details.student))
    if details.ensemble is not None:
        blocks.append(_confusion("the ensemble of the silos", details.ensemble))
    names = {silo: f"teacher {silo}" for silo in details.teachers}
    each = [Folded(f"Confusion of {names[s]}", (_confusion(names[s], m),)) for s, m in details.teachers.items()]
    blocks += [Folded(f"Confusion of each of {len(each)} teachers", tuple(each))] if len(each) > LONG else each
    if details.teachers:
        blocks.append(Note("Teachers were measured past the gatekeepers, which only a simulation can do."))
    return Section("confusion", title, tuple(blocks))


def times(run: RunFacts) -> Section:
    """Waiting against work."""
    title = "Waiting and work"
    if not run.rounds:
        return Section("time", title, (Note("No round has ended yet."),))
    waited, worked, rows = [], [], []
    before_s = before_w = 0.0
    for line in run.rounds:
        seconds, waiting = line["seconds"] - before_s, line["waiting_s"] - before_w
        if waiting < 0:  # files of earlier versions count from each resumption anew
            waiting = line["waiting_s"]
        before_s, before_w = line["seconds"], line["waiting_s"]
        work = max(0.0, seconds - waiting)
        worked.append((float(line["round"]), work))
        waited.append((float(line["round"]), waiting))
        rows.append((f"round {line['round']}", f"{work:.2f}", f"{waiting:.2f}"))
    total_wait, total_work = sum(y for _, y in waited), sum(y for _, y in worked)
    share = total_wait / max(total_wait + total_work, 1e-9)
    description = (
        f"Over the rounds the server worked {duration(total_work)} and waited {duration(total_wait)} for answers "
        f"({percent(share)})."
    )
    svg = bars(
        "time-chart",
        f"{title}. {description}",
        "round",
        "seconds",
        [Series("work", worked), Series("waiting for answers", waited)],
    )
    table = Table.of("Seconds of each round", ("", "work", "waiting"), rows)
    blocks: list[Block] = [Chart(title, description, svg, table)]
    if run.timeline:
        blocks.append(time_line_chart(run.timeline))
    replies = [(silo.id, f"{silo.reply_seconds:.3f}") for silo in run.silos if silo.reply_seconds is not None]
    if replies:
        text = "Median seconds from a query to its answer, as the server saw it"
        blocks.append(folded_where_long(Table.of(text, ("silo", "seconds"), replies)))
    return Section("time", title, tuple(blocks))


def _burn_down(told: list[MetricsLine]) -> Chart:
    """Of many silos, those with the least left; silos that go alike share a line."""
    paths: dict[tuple[tuple[float, float], ...], list[str]] = {}
    figures = [(line["round"], line["silos"]) for line in told]
    silos = list(figures[-1][1])
    for silo in silos:
        path = tuple((float(number), float(left[silo]["left"])) for number, left in figures)
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
    rows = [(silo, *(f"{left[silo]['left']:,}" for _, left in figures)) for silo in silos]
    if len(silos) <= _MOST_LINES:  # the many, be it silos or rounds, go down the page
        heads, rows = silos, [(head, *column) for head, *column in zip(heads, *(row[1:] for row in rows), strict=True)]
    return Chart(title, description, svg, Table.of("Images left, by round", ("", *heads), rows))


def _together(silos: list[str]) -> str:
    return ", ".join(silos) if len(silos) <= 2 else f"{silos[0]} to {silos[-1]} ({len(silos)} alike)"


def _state(silo: Silo) -> str:
    return f"no longer asked: {silo.gone}" if silo.gone else "answers"


def _confusion(name: str, matrix: Counts) -> Table:
    size, right = len(matrix), np.trace(matrix) / max(matrix.sum(), 1)
    if size > _MOST_CLASSES:
        wrong = matrix - np.diag(np.diag(matrix))
        order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
        pairs = [(int(i // size), int(i % size)) for i in order if wrong.flat[i] > 0]
        rows = [(f"class {t}", f"class {s}", f"{wrong[t, s]:,} of {matrix[t].sum():,}") for t, s in pairs]
        caption = f"Most frequent mistakes of {name} ({percent(right)} right)"
        return Table.of(caption, ("true", "said", "images"), rows)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cells = tuple((Cell(f"class {t}"), *(share_cell(float(share)) for share in shares[t])) for t in range(size))
    caption = f"Confusion of {name} ({percent(right)} of {matrix.sum():,} images right)"
    return Table(caption, ("true class", *(str(k) for k in range(size))), cells, dense=True)
