# SPDX-License-Identifier: Apache-2.0
"""Who mistakes what for what: a table for few classes, a picture and the most frequent mistakes for many."""

from __future__ import annotations

import numpy as np

from fedcpsc.report.blocks import (
    LONG,
    MOST_CLASSES,
    Block,
    Cell,
    Chart,
    Folded,
    Note,
    Section,
    Table,
    class_label,
    percent,
    share_cell,
    short_label,
    stand_upright,
)
from fedcpsc.report.heat_map import heat_map
from fedcpsc.runs.details import Counts
from fedcpsc.runs.read import RunFacts

__all__ = ["confusions"]

_MISTAKES = 15


def confusions(run: RunFacts) -> Section:
    """Who mistakes what for what."""
    title = "Confusion"
    details = run.details
    if details is None or details.student is None:
        return Section("confusion", title, (Note("Nothing was measured: no held-out images, or not finished."),))
    blocks: list[Block] = [Note("Rows are true classes, columns what was said; in % of the row's images.")]
    classes = details.class_names
    blocks += _confusion("the student", "student", details.student, classes)
    if details.ensemble is not None:
        blocks += _confusion("the ensemble of the silos", "ensemble", details.ensemble, classes)
    each: list[Block] = [
        Folded(f"Confusion of teacher {silo}", _confusion(f"teacher {silo}", f"teacher-{number}", matrix, classes))
        for number, (silo, matrix) in enumerate(details.teachers.items())
    ]
    blocks += [Folded(f"Confusion of each of {len(each)} teachers", tuple(each))] if len(each) > LONG else each
    if details.teachers:
        blocks.append(Note("Teachers were measured past the gatekeepers, which only a simulation can do."))
    return Section("confusion", title, tuple(blocks))


def _confusion(name: str, anchor: str, matrix: Counts, classes: tuple[str, ...] | None) -> tuple[Block, ...]:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    right = f"{percent(np.trace(matrix) / max(matrix.sum(), 1))} of {matrix.sum():,} images right"
    if len(matrix) > MOST_CLASSES:
        mistakes = _mistakes(name, matrix, classes)
        title, text = f"Confusion of {name}", f"{right}; the diagonal is what was said rightly"
        names = [class_label(classes, k) for k in range(len(matrix))]
        axes = "columns: what was said; rows: the true class"
        drawn = heat_map(f"confusion-{anchor}", f"{title}: {text}. {_in_words(mistakes)}", shares, names, axes)
        return Chart(title, f"{text}. The stronger the tint, the larger the share.", drawn, None, beside=True), mistakes
    heads = ("true ↓  said →", *(short_label(classes, k) for k in range(len(matrix))))
    rows = tuple(
        (Cell(class_label(classes, true)), *(share_cell(float(share)) for share in shares[true]))
        for true in range(len(matrix))
    )
    return (
        Table(f"Confusion of {name} ({right})", heads, rows, dense=True, upright=stand_upright(heads), beside=True),
    )


def _mistakes(name: str, matrix: Counts, classes: tuple[str, ...] | None) -> Table:
    size = len(matrix)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [(int(i // size), int(i % size)) for i in order if wrong.flat[i] > 0]
    rows = [
        (class_label(classes, t), class_label(classes, s), f"{wrong[t, s]:,} of {matrix[t].sum():,}") for t, s in pairs
    ]
    right = percent(np.trace(matrix) / max(matrix.sum(), 1))
    return Table.of(f"Most frequent mistakes of {name} ({right} right)", ("true", "said", "images"), rows, beside=True)


def _in_words(mistakes: Table) -> str:
    if not mistakes.rows:
        return "There are no mistakes."
    true, said, images = (cell.text for cell in mistakes.rows[0])
    return f"The most frequent mistake is {said} for {true}, {images}."
