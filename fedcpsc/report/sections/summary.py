# SPDX-License-Identifier: Apache-2.0
"""The run at a glance, and what was run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fedcpsc.report.blocks import MOST_CLASSES, Block, Facts, Note, Section
from fedcpsc.report.sections.belief import alarms_about_silos
from fedcpsc.report.sections.headline import key_figures
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.real_pictures import not_free_of_data

__all__ = ["in_short", "what_was_run"]


def in_short(run: RunFacts) -> Section:
    """The figures to see first, and what an operator should look at."""
    blocks: list[Block] = [key_figures(run)]
    if run.result is None:
        done = f"{len(run.rounds)} of {run.planned_rounds} rounds are done"
        blocks.append(Note(f"This run has not finished: {done}. Figures below are those so far.", "Unfinished"))
        if run.error:
            blocks.append(Note(f"It stopped with: {run.error}", "Error"))
    blocks += alarms_about_silos(run)
    alarms = [str(line["round"]) for line in run.rounds if line["alarm"]]
    if alarms:
        what = "the silos called nearly everything one class: the query images had gone astray"
        blocks.append(Note(f"In round {', '.join(alarms)} {what}.", "Alarm"))
    return Section("in-short", "In short", tuple(blocks), quiet=True)


def what_was_run(run: RunFacts) -> Section:
    """The configuration in words."""
    config, queries = run.config, run.config.queries
    shape, classes = _images_of(run)
    measured = config.evaluation.held_out and (run.result is None or run.result.get("evaluation_images", 1))
    where = "simulated on one machine" if run.simulated else "not marked as a simulation"
    how = "measured on validation images" if config.data.validation else "measured on held-out images"
    items = (
        ("data", f"{config.data.source}; {_shape(shape)}, {classes} classes{_named(run)}"),
        ("silos", f"{len(run.silos)} of {config.silos.count} joined{_excluded(run)}; {where}"),
        ("asked", f"{queries.answers_per_silo:,} images of each silo in {run.planned_rounds} rounds, {_as_form(run)}"),
        ("query images", f"prior ({', '.join(config.synthesis.prior)}){_generator(run)}{_public(run)}{_tones(run)}"),
        *_real_data(run),
        ("aggregation", f"{config.aggregation.rule}, {_judged(run)}"),
        ("student", _network(run)),
        ("accuracy", f"{how}, which no silo trained on and which steer nothing" if measured else "not measured"),
        ("seed", str(config.seed)),
    )
    return Section("what-was-run", "What was run", (Facts(items),))


def _network(run: RunFacts) -> str:
    """The student's network, what it began with, and how it was fitted."""
    config, known = run.config.student, None if run.result is None else run.result["student"]
    own = run.student_start["module"]
    name = config.architecture if own is None else f"{own}, a module of the caller's own"
    words = [f"{name}, committee of {config.committee}"]
    if config.fellows is not None and config.committee > 1:
        words[0] += f" (beside it {config.fellows})"
    if known is not None and "weights" in known:
        words.append(f"{known['weights']['note']} ({known['weights']['file']}, SHA-256 {known['weights']['sha256']})")
    if known is not None and "optimiser" in known:
        words.append(f"fitted by {known['optimiser']}")
    if config.precision is not None:
        words.append(f"passes in {config.precision}")
    return "; ".join(words)


def _as_form(run: RunFacts) -> str:
    form = run.config.queries.form
    return "in the richest form each offers" if form == "best" else f"as {form}"


def _images_of(run: RunFacts) -> tuple[Sequence[int] | None, int | str]:
    """(C, H, W) and the number of classes, as far as bank or result hold them."""
    if run.bank is not None:
        return run.bank.image_shape, run.bank.classes
    if run.result is not None:
        return run.result.get("image_shape"), run.result.get("classes", "unknown")
    return None, "unknown"


def _judged(run: RunFacts) -> str:
    how = "silos judged by their answers (aggregation.robust)" if run.judged else "silos not judged by their answers"
    return how if run.judged or run.not_judged is None else f"{how}: {run.not_judged}"


def _excluded(run: RunFacts) -> str:
    """The silos that were left out."""
    names = run.config.aggregation.exclude
    return f", {len(names)} excluded ({', '.join(names)})" if names else ""


def _named(run: RunFacts) -> str:
    """The classes' names, and which silos know only a part of them."""
    sets = None if run.bank is None else run.bank.label_sets
    names = run.result.get("class_names") if run.result is not None else sets and sets.names
    if not names:
        return ", by number"
    shown = f": {', '.join(names[:MOST_CLASSES])}" + (" and more" if len(names) > MOST_CLASSES else "")
    if sets is None or sets.known.all():
        return shown
    part = sum(not known.all() for known in sets.known)
    return f"{shown}; {part} of {len(sets.known)} silos know a part of them, and answer in their own"


def _shape(shape: Sequence[int] | None) -> str:
    if not shape:
        return "image size unknown"
    channels, height, width = shape
    return f"images {height} x {width}, {'grey' if channels == 1 else f'{channels} channels'}"


def _public(run: RunFacts) -> str:
    """The server's own pictures; of their path the last part alone."""
    public = run.config.synthesis.public
    if public is None:
        return ""
    return f"; {run.config.synthesis.public_share:.0%} from pictures of the server's own ({Path(public.path).name})"


def _tones(run: RunFacts) -> str:
    """How light the silos' answers said that the images should be."""
    tones = None if run.result is None else run.result.get("tones")
    if tones is None:
        return ""
    return f"; how light, the silos' answers said: pixels of mean {tones['mean']:.2f}, scatter {tones['spread']:.2f}"


def _real_data(run: RunFacts) -> list[tuple[str, str]]:
    """Whether the images come from real pictures; nothing where they do not, or the run has not finished."""
    result = run.result
    if result is None or not (said := not_free_of_data(result.get("real_pictures", ()), result.get("images", 0))):
        return []
    return [("real data", said)]


def _generator(run: RunFacts) -> str:
    synthesis, rounds = run.config.synthesis, run.config.queries.rounds
    first = math.ceil(synthesis.warmup_share * rounds) + 1
    none = synthesis.prior_share == 1 or first > rounds
    return " alone" if none else f" and, from round {first} on, a generator"
