"""The report's first half: what was run, what came out, and what the answers brought."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import binomtest

from fedcpsc.report.blocks import (
    LONG,
    Block,
    Chart,
    Facts,
    Note,
    Section,
    Table,
    duration,
    folded_where_long,
    percent,
)
from fedcpsc.report.figures import Level, Series, lines
from fedcpsc.report.query_pictures import query_table
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.read import RunFacts, Silo

__all__ = ["accuracy", "best_teacher", "in_short", "outcome", "queries", "what_was_run"]

_EMPTY = ("", "", "", "", "")  # what only silos have


def in_short(run: RunFacts) -> Section:
    """The run in a few sentences."""
    blocks: list[Block] = []
    if run.result is None:
        done = f"{len(run.rounds)} of {run.config.queries.rounds} rounds are done"
        blocks.append(Note(f"This run has not finished: {done}. Figures below are those so far.", "Unfinished"))
        if run.error:
            blocks.append(Note(f"It stopped with: {run.error}", "Error"))
    items = [("student", _student(run))]
    if run.result is not None:
        items += [("ensemble of the silos, without a student", percent(run.result["ensemble"]["accuracy"]))]
        items += [("best single teacher", percent(best_teacher(run)))]
    items += [
        ("silos", f"{len(run.silos)}, each answered at most {_most(run):,} images"),
        ("differential privacy", _privacy(run.silos)),
    ]
    blocks.append(Facts(tuple(items)))
    alarms = [str(line["round"]) for line in run.rounds if line["alarm"]]
    if alarms:
        what = "the silos called nearly everything one class: the query images had gone astray"
        blocks.append(Note(f"In round {', '.join(alarms)} {what}.", "Alarm"))
    return Section("in-short", "In short", tuple(blocks))


def what_was_run(run: RunFacts) -> Section:
    """The configuration in words."""
    config, queries = run.config, run.config.queries
    shape, classes = _images_of(run)
    where = "simulated on one machine" if run.simulated else "not marked as a simulation"
    how = "measured on validation images" if config.data.validation else "measured on held-out images"
    items = (
        ("data", f"{config.data.source}; {_shape(shape)}, {classes} classes"),
        ("silos", f"{len(run.silos)} of {config.silos.count} joined; {where}"),
        ("asked", f"{queries.answers_per_silo:,} images of each silo in {queries.rounds} rounds, {_as_form(run)}"),
        ("query images", f"prior ({', '.join(config.synthesis.prior)}){_generator(run)}"),
        ("aggregation", config.aggregation.rule),
        ("student", f"{config.student.architecture}, committee of {config.student.committee}"),
        ("accuracy", f"{how}, which no silo trained on and which steer nothing" if config.evaluation.held_out else "-"),
        ("seed", str(config.seed)),
    )
    return Section("what-was-run", "What was run", (Facts(items),))


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
    blocks: list[Block] = [Table.of(title, columns, rows, foot=2)]
    if many:  # what they come to first, each behind a fold
        each, together = rows[: len(run.silos)], [row[:2] for row in rows[len(run.silos) :]]
        short = Table.of("What teachers, their ensemble and the student reach", columns[:2], together)
        blocks = [short, folded_where_long(Table.of("What each teacher reaches", columns, each))]
    blocks.append(Note(f"The run took {time}; {sent} were sent, {received} received."))
    if run.simulated:
        blocks.append(
            Note(
                "Private images and the accuracies of teachers and ensemble were measured past the gatekeepers and "
                "outside every privacy guarantee. Only a simulation can do that; a deployment shows none of them."
            )
        )
    gone = [f"{silo.id}: {silo.gone}" for silo in run.silos if silo.gone]
    if gone:
        blocks.append(Note("No longer asked before the end: " + "; ".join(gone) + ".", "Note"))
    return Section("outcome", "Outcome", tuple(blocks))


def accuracy(run: RunFacts) -> Section:
    """Student accuracy against answers."""
    measured = [line for line in run.lines if line.get("student_accuracy") is not None]
    title = "Accuracy against answers"
    if not measured:
        return Section("accuracy", title, (Note("The run had no held-out images to measure on."),))
    series = [Series("student, during the rounds", [_point(line) for line in measured if line["phase"] == "round"])]
    final = [line for line in measured if line["phase"] == "final"]
    if final:
        series.append(Series("student, after the final fit", [_point(final[-1])], alone=True))
    levels = []
    for name, value in (("ensemble", measured[-1].get("ensemble_accuracy")), ("best teacher", best_teacher(run))):
        if value is not None:
            levels.append(Level(f"{name}, {percent(value)}", 100 * value))
    rows = [
        (
            f"round {line['round']}" if line["phase"] == "round" else "final fit",
            f"{line['answers_used']:,}",
            percent(line["student_accuracy"]),
        )
        for line in [*(line for line in measured if line["phase"] == "round"), *final[-1:]]
    ]
    last = rows[-1]
    description = f"The student reaches {last[2]} after {last[1]} answers of each silo ({last[0]})."
    svg = lines(
        "accuracy-chart",
        f"{title}. {description}",
        "images answered by each silo",
        "accuracy, %",
        [line for line in series if line.points],
        levels,
        top=103,
    )
    table = Table.of("Student accuracy on held-out images", ("", "answers of each silo", "accuracy"), rows)
    return Section("accuracy", title, (Chart(title, description, svg, table),))


def queries(run: RunFacts) -> Section:
    """What was asked."""
    title = "What the silos were asked"
    table = None if run.bank is None else query_table(run.bank)
    if table is None:
        return Section("queries", title, (Note("The run's folder holds no answered images."),))
    text = "The server invented these images; none comes from private data. Classes are what the silos together saw."
    return Section("queries", title, (Note(text), table))


def best_teacher(run: RunFacts) -> float | None:
    """The highest of the teachers' accuracies, where they are known."""
    return max((silo.teacher_accuracy for silo in run.silos if silo.teacher_accuracy is not None), default=None)


def _student(run: RunFacts) -> str:
    if run.result is None:
        measured = [line["student_accuracy"] for line in run.lines if line.get("student_accuracy") is not None]
        return f"{percent(measured[-1])} so far" if measured else "not measured yet"
    value, images = run.result["student"]["accuracy"], run.result.get("evaluation_images")
    if value is None or not images:
        return "not measured: the run had no held-out images"
    interval = binomtest(round(value * images), images).proportion_ci(0.95, "wilson")
    spread = f"{percent(interval.low)} to {percent(interval.high)}"
    return f"{percent(value)} of {images:,} held-out images (95 % interval of that sample {spread}; one seed)"


def _most(run: RunFacts) -> int:
    return max((silo.answers for silo in run.silos), default=0)


def _privacy(silos: tuple[Silo, ...]) -> str:
    without = [silo.id for silo in silos if silo.dp is False]
    with_ = [silo for silo in silos if silo.dp]
    if not without and not with_:
        return "not recorded yet"
    if not with_:
        return "none: what the silos answered is not protected, nor is what the student repeats of it"
    worst: dict[str, float] = {}
    for silo in with_:
        unit = silo.unit or "unit (not recorded)"
        worst[unit] = max(worst.get(unit, 0.0), silo.epsilon or 0.0)
    most = ", ".join(f"{epsilon:.3g} per {unit}" for unit, epsilon in worst.items())
    claimed = f"{len(with_)} of {len(silos)} silos claim it, epsilon at most {most}"
    return claimed if not without else f"{claimed}; not protected: {', '.join(without)}"


def _as_form(run: RunFacts) -> str:
    form = run.config.queries.form
    return "in the richest form each offers" if form == "best" else f"as {form}"


def _shown(silo: Silo) -> str:
    if silo.form is None:
        return "not recorded"
    return f"{silo.form}, noise {silo.noise_sigma:g}" if silo.noise_sigma else silo.form


def _claim(silo: Silo) -> str:
    if not silo.dp:
        return "none"
    delta = f"{silo.delta:.0e}" if silo.delta is not None else "-"
    return f"epsilon {silo.epsilon:.3g}, delta {delta}, per {silo.unit}, {silo.relation} ({silo.mechanism})"


def _images_of(run: RunFacts) -> tuple[Sequence[int] | None, int | str]:
    """(C, H, W) and the number of classes, as far as bank or result tell them."""
    if run.bank is not None:
        return run.bank.image_shape, run.bank.classes
    if run.result is not None:
        return run.result.get("image_shape"), run.result.get("classes", "unknown")
    return None, "unknown"


def _point(line: MetricsLine) -> tuple[float, float]:
    return float(line["answers_used"]), 100 * float(line["student_accuracy"])


def _shape(shape: Sequence[int] | None) -> str:
    if not shape:
        return "image size unknown"
    channels, height, width = shape
    return f"images {height} x {width}, {'grey' if channels == 1 else f'{channels} channels'}"


def _generator(run: RunFacts) -> str:
    synthesis, rounds = run.config.synthesis, run.config.queries.rounds
    first = math.ceil(synthesis.warmup_share * rounds) + 1
    none = synthesis.prior_share == 1 or first > rounds
    return " alone" if none else f" and, from round {first} on, a generator"
