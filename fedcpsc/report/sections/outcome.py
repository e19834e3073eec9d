# SPDX-License-Identifier: Apache-2.0
"""What teachers, their ensemble and the student reach: the final table and the curve."""

from __future__ import annotations

from fedcpsc.report.blocks import (
    LONG,
    Block,
    Chart,
    Note,
    Section,
    Table,
    duration,
    folded_where_long,
    percent,
)
from fedcpsc.report.figures import Level, Series, lines
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.read import RunFacts, Silo

__all__ = ["accuracy", "best_teacher", "outcome"]

_HIGH, _FULL = 80.0, 101.0  # per cent: where the figures come so near to all, the axis ends there
_EMPTY = ("", "", "", "", "")  # what only silos have


def outcome(run: RunFacts) -> Section:
    """The final table."""
    result = run.result
    if result is None:
        return Section("outcome", "Outcome", (Note("There is no outcome yet: the run has not finished."),))
    columns = ("", "accuracy", "answers", "refusals", "private images", "differential privacy", "answered as")
    rows = [
        (
            f"teacher {silo.id}",
            percent(silo.teacher_accuracy),
            f"{silo.answers:,}",
            ", ".join(f"{count} {code}" for code, count in silo.refusals.items()) or "0",
            "-" if silo.train_size is None else f"{silo.train_size:,}",
            _claim(silo),
            _shown(silo),
        )
        for silo in run.silos
    ]
    known = sorted(silo.teacher_accuracy for silo in run.silos if silo.teacher_accuracy is not None)
    many = len(rows) > LONG
    if many and known:
        of = f"of {len(known)} teachers"
        middle = percent(known[len(known) // 2])
        rows += [(f"{name} {of}", value, *_EMPTY) for name, value in (("best", percent(known[-1])), ("median", middle))]
    rows.append((f"ensemble ({result['ensemble']['rule']})", percent(result["ensemble"]["accuracy"]), *_EMPTY))
    rows.append(("student", percent(result["student"]["accuracy"]), *_EMPTY))
    seconds = result["seconds"]
    sent, received = (f"{count / 1e6:.2f} MB" for count in (result["bytes_sent"], result["bytes_received"]))
    time = f"{duration(seconds['total'])}, of which {duration(seconds['waiting'])} waiting for answers"
    title = "What each teacher, their ensemble and the student reach"
    blocks: list[Block] = [Table.of(title, columns, rows, foot=2, words=2)]
    if many:  # what they come to first, each behind a fold
        each, together = rows[: len(run.silos)], [row[:2] for row in rows[len(run.silos) :]]
        short = Table.of("What teachers, their ensemble and the student reach", columns[:2], together)
        blocks = [short, folded_where_long(Table.of("What each teacher reaches", columns, each, words=2))]
    blocks.append(Note(f"The run took {time}; {sent} were sent, {received} received."))
    if run.simulated:
        blocks.append(
            Note(
                "Private images and the accuracies of teachers and ensemble were measured past the gatekeepers and "
                "outside every privacy guarantee. Only a simulation can do that; a deployment shows none of them."
            )
        )
    stopped = [f"{silo.id}: {silo.stopped}" for silo in run.silos if silo.stopped]
    if stopped:
        blocks.append(Note("No longer asked before the end: " + "; ".join(stopped) + ".", "Note"))
    return Section("outcome", "Outcome", tuple(blocks))


def accuracy(run: RunFacts) -> Section:
    """Student accuracy against answers."""
    measured = [line for line in run.lines if line.get("student_accuracy") is not None]
    title = "Accuracy against answers"
    if not measured:
        none = "The run had no held-out images to measure on."
        waiting = run.result is None and run.config.evaluation.held_out
        return Section("accuracy", title, (Note("Nothing was measured yet." if waiting else none),))
    during = [line for line in measured if line["phase"] == "round"]
    final = [line for line in measured if line["phase"] == "final"]
    series = []
    if during:
        ending = f"student, last round, {percent(during[-1]['student_accuracy'])}"
        series.append(Series("student, during the rounds", [_point(line) for line in during], end=ending))
    if final:
        ending = f"student, final fit, {percent(final[-1]['student_accuracy'])}"
        series.append(Series("student, after the final fit", [_point(final[-1])], alone=True, end=ending))
    ensemble = measured[-1].get("ensemble_accuracy")  # of runs of earlier versions, which knew it from the beginning
    if run.result is not None:
        ensemble = run.result["ensemble"]["accuracy"]
    levels = []
    for name, value in (("ensemble", ensemble), ("best teacher", best_teacher(run))):
        if value is not None:
            levels.append(Level(f"{name}, {percent(value)}", 100 * value))
    rows = [
        (
            f"round {line['round']}" if line["phase"] == "round" else "final fit",
            f"{line['answers_used']:,}",
            percent(line["student_accuracy"]),
        )
        for line in [*during, *final[-1:]]
    ]
    last = rows[-1]
    description = f"The student reaches {last[2]} after {last[1]} answers of each silo ({last[0]})."
    svg = lines(
        "accuracy-chart",
        f"{title}. {description}",
        "images answered by each silo",
        "accuracy, %",
        series,
        levels,
        top=_FULL if any(level.y > _HIGH for level in levels) else None,
        x_from_zero=True,
    )
    table = Table.of("Student accuracy on held-out images", ("", "answers of each silo", "accuracy"), rows)
    return Section("accuracy", title, (Chart(title, description, svg, table),))


def best_teacher(run: RunFacts) -> float | None:
    """The highest of the teachers' accuracies, where they are known."""
    return max((silo.teacher_accuracy for silo in run.silos if silo.teacher_accuracy is not None), default=None)


def _shown(silo: Silo) -> str:
    if silo.form is None:
        return "not recorded"
    return f"{silo.form}, noise {silo.noise_sigma:g}" if silo.noise_sigma else silo.form


def _claim(silo: Silo) -> str:
    if not silo.dp:
        return "none"
    delta = f"{silo.delta:.0e}" if silo.delta is not None else "-"
    return f"epsilon {silo.epsilon:.3g}, delta {delta}, per {silo.unit}, {silo.relation} ({silo.mechanism})"


def _point(line: MetricsLine) -> tuple[float, float]:
    return float(line["answers_used"]), 100 * float(line["student_accuracy"])
