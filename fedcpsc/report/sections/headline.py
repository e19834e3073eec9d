# SPDX-License-Identifier: Apache-2.0
"""What was learnt, in one sentence, and the figures to see first."""

from __future__ import annotations

from scipy.stats import binomtest

from fedcpsc.report.blocks import KeyFigure, Strip, percent
from fedcpsc.report.sections.outcome import best_teacher
from fedcpsc.runs.evaluation_words import estimate_in_words
from fedcpsc.runs.read import RunFacts, Silo
from fedcpsc.runs.result import PooledEvaluation

__all__ = ["headline", "key_figures"]


def headline(run: RunFacts) -> str:
    """One sentence that says no more than the run knows."""
    if run.result is None:
        return _unfinished(run)
    whose = _whose(run)
    classes = run.result.get("classes")
    student = "A student" if classes is None else f"A student of {classes:,} classes"
    reached, ensemble = run.result["student"]["accuracy"], run.result["ensemble"]["accuracy"]
    pooled = _pooled(run)
    if reached is None and pooled is not None:
        right = f"{percent(pooled['accuracy'])} of {pooled['images']:,} held-out images of theirs"
        return f"{student} was fitted to {whose}; by the silos' own word it classifies {right} rightly."
    if reached is None:
        return f"{student} was fitted to {whose}; without held-out images, how good it is was not measured."
    if ensemble is None:
        return f"{student} reaches {percent(reached)} from {whose}."
    return f"{student} reaches {percent(reached)} from {whose}; the ensemble reaches {percent(ensemble)}."


def key_figures(run: RunFacts) -> Strip:
    """Best teacher, student and ensemble, as far as they are known; answers; the privacy that was promised."""
    items = [_student(run)]
    best = best_teacher(run)
    if best is not None:
        which = next(silo.id for silo in run.silos if silo.teacher_accuracy == best)
        items.insert(0, KeyFigure("best single teacher", percent(best), f"of {which}, alone"))
    if run.result is not None and (together := run.result["ensemble"]["accuracy"]) is not None:
        note = f"of the silos, without a student ({run.result['ensemble']['rule']})"
        items.append(KeyFigure("ensemble", percent(together), note))
    most = max((silo.answers for silo in run.silos), default=0)
    rounds = f"{len(run.rounds)} rounds" if run.result is not None else f"{len(run.rounds)} rounds so far"
    items.append(KeyFigure("answers per silo", f"{most:,}", f"at most, of {len(run.silos)} silos in {rounds}"))
    items.append(_privacy(run.silos))
    return Strip(tuple(items))


def _pooled(run: RunFacts) -> PooledEvaluation | None:
    """What the silos together say of the student; None where they were not asked, or tell too little."""
    found = None if run.result is None else run.result.get("federated_evaluation")
    return None if found is None else found["pooled"]


def _whose(run: RunFacts) -> str:
    count = sum(silo.answers > 0 for silo in run.silos) or len(run.silos)
    return "1 silo's answers" if count == 1 else f"{count:,} silos' answers"


def _unfinished(run: RunFacts) -> str:
    rounds = f"{len(run.rounds)} of {run.config.queries.rounds} rounds are done"
    measured = _measured(run)
    if not run.rounds:
        return "Not finished: no round is done yet."
    if measured is None:
        return f"Not finished: {rounds}."
    return f"Not finished: {rounds}, and the student reaches {percent(measured)} so far."


def _measured(run: RunFacts) -> float | None:
    return next((v for line in reversed(run.lines) if (v := line.get("student_accuracy")) is not None), None)


def _student(run: RunFacts) -> KeyFigure:
    if run.result is None:
        so_far = _measured(run)
        known = so_far is not None
        return KeyFigure("student", percent(so_far) if known else "-", "so far" if known else "not measured yet", True)
    value, images = run.result["student"]["accuracy"], run.result.get("evaluation_images")
    if value is None and (pooled := _pooled(run)) is not None:
        note = f"by the silos' own word, of {pooled['images']:,} images of theirs"
        note += f" (standard error {100 * pooled['standard_error']:.1f} points)"
        return KeyFigure("student", percent(pooled["accuracy"]), note, main=True)
    if value is None or not images:
        note, estimated = "the run had no held-out images", run.result.get("estimate")
        note += "" if estimated is None else f"; {estimate_in_words(estimated)}"
        return KeyFigure("student", "not measured", note, main=True)
    interval = binomtest(round(value * images), images).proportion_ci(0.95, "wilson")
    spread = f"{percent(interval.low)} to {percent(interval.high)}"
    note = f"of {images:,} held-out images (95 % interval of that sample {spread}; one seed)"
    return KeyFigure("student", percent(value), note, main=True)


def _privacy(silos: tuple[Silo, ...]) -> KeyFigure:
    term = "differential privacy"
    without = [silo.id for silo in silos if silo.dp is False]
    with_ = [silo for silo in silos if silo.dp]
    if not without and not with_:
        return KeyFigure(term, "-", "not recorded yet")
    if not with_:
        text = "what the silos answered is not protected, nor is what the student repeats of it"
        return KeyFigure(term, "not private", text)
    worst: dict[str, float] = {}
    for silo in with_:
        unit = silo.unit or "unit (not recorded)"
        worst[unit] = max(worst.get(unit, 0.0), silo.epsilon or 0.0)
    most = ", ".join(f"{epsilon:.3g} per {unit}" for unit, epsilon in worst.items())
    claimed = f"{len(with_)} of {len(silos)} silos claim it, epsilon at most {most}"
    if without:
        return KeyFigure(term, "partly", f"{claimed}; not protected: {', '.join(without)}")
    largest = max(worst.values())
    return KeyFigure(term, f"epsilon {largest:.3g}", claimed)
