"""The round loop: synthesise -> ask -> fit on what is banked while the silos work -> bank -> checkpoint.

Rounds go in bundles, of one round each unless the silos are slow; `pace.py` says which answers a bundle sees.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.asking import Asking
from fedcpsc.distillation.by_recipe import Source, cut_recipe, synthesise_by_recipe
from fedcpsc.distillation.checkpoint import load_checkpoint, save_checkpoint
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.fitting import Fit
from fedcpsc.distillation.pace import Course, Pace, next_size
from fedcpsc.distillation.steps import BankReader, Member, make_committee
from fedcpsc.distillation.synthesis import make_generator, synthesise
from fedcpsc.distillation.targets import TargetKeeper, class_entropy
from fedcpsc.errors import FederationError, explain
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_index import Batch
from fedcpsc.runs.metrics import MetricsLine
from fedcpsc.runs.timeline import Timeline
from fedcpsc.seeding import derive_seed

__all__ = ["Engine", "Progress", "run_rounds"]

Progress = Callable[[MetricsLine], None]

_FINAL_CHUNKS = 20  # progress lines of the final fit
_FIT_CHUNK = 10  # steps between two looks at the post


@dataclass
class Engine:
    """What the rounds work on.

    Attributes:
        timeline: the run's clock, which also records what was done when.
        fit: does the optimiser steps.
        images_per_query: the most that every silo takes at once.
        progress: called with one mapping a round, see `run.py`.
    """

    config: RunConfig
    bank: AnswerBank
    asking: Asking
    targets: TargetKeeper
    timeline: Timeline
    device: torch.device
    fit: Fit
    folder: Path
    images_per_query: int
    evaluation: ImageSet | None
    progress: Progress
    members: list[Member] = field(default_factory=list)
    generator: ConditionalGenerator | None = None
    course: Course = field(default_factory=lambda: Course(0))

    @property
    def student(self) -> Member:
        """The committee's first member."""
        return self.members[0]

    @property
    def seconds(self) -> float:
        """Spent on the run, earlier attempts counted in."""
        return self.timeline.now


def run_rounds(engine: Engine) -> None:
    """Runs, or goes on with, all rounds and the final fit; `engine.student` is then the product.

    Raises:
        FederationError: where no silo has answered anything.
    """
    config, bank, asking = engine.config, engine.bank, engine.asking
    reader = BankReader(bank, engine.device)
    engine.members = make_committee(config.student, bank.classes, bank.image_shape, config.seed, engine.device)
    found = load_checkpoint(engine.folder, engine.members, engine.device)
    engine.course = Course(Pace.of(config.queries).ahead, found.ends, found.size)
    engine.timeline.at_least(found.seconds)
    if found.generator is not None:
        engine.generator = make_generator(config.synthesis, bank.classes, bank.image_shape, seed=0).to(engine.device)
        engine.generator.load_state_dict(found.generator)
    asking.ask([batch for batch in bank.batches if batch.round < engine.course.asked])  # what a crash left unanswered
    entropy = 1.0
    while engine.course.asked < config.queries.rounds:
        bundle = engine.course.bundle(config.queries.rounds)
        begun, waited = engine.seconds, engine.timeline.waited_s
        engine.targets.refresh(engine.course.seen)
        with engine.timeline.stretch("synthesis", bundle.stop):
            batches = _bundle_batches(engine, bundle)
        asking.ask(batches)
        reader.refresh()
        with engine.timeline.stretch("fit", bundle.stop):
            for round_index in bundle:
                _fit_committee(engine, reader, round_index)
        engine.course = engine.course.after(bundle)
        answered = _see(engine, engine.course.seen)
        if len(answered) == 0:
            why = {silo: state.left or dict(state.refusals) for silo, state in asking.silos.items()}
            raise FederationError(explain("answers", 0, f"no silo answered: {why}", "ask the silos' owners"))
        entropy = class_entropy(bank.targets[answered])
        work_s = engine.seconds - begun - (engine.timeline.waited_s - waited)
        engine.course = replace(engine.course, size=_next_size(engine, work_s / len(bundle)))
        with engine.timeline.stretch("checkpoint", bundle.stop):
            save_checkpoint(engine.folder, engine.members, engine.generator, engine.course, engine.seconds)
        with engine.timeline.stretch("evaluation", bundle.stop):
            _report(engine, bundle, "round", entropy)
        if not asking.active:
            break  # every budget is spent: what is banked is what there is
    _final_fit(engine, reader, entropy)


def _see(engine: Engine, before: int) -> npt.NDArray[np.int64]:
    """Waits for the answers to the rounds before `before` and aggregates them; returns their rows."""
    queries = engine.config.queries
    engine.asking.settle(before, queries.deadline_s, queries.quorum)
    with engine.timeline.stretch("targets", before):
        engine.targets.refresh(before)
    return engine.bank.answered_rows(range(before))


def _next_size(engine: Engine, work_s: float) -> int:
    """Rounds of the next bundle. Until something could be fitted, a round's work is not known."""
    config, course = engine.config.queries, engine.course
    if len(course.ends) == 1:
        return course.size
    return next_size(
        course.size,
        answer_s=engine.asking.seconds_a_query(),
        work_s=work_s,
        waiting_goal=Pace.of(config).waiting_goal,
        images_fit=engine.images_per_query * config.rounds // config.answers_per_silo,
        rounds=config.rounds,
    )


def _bundle_batches(engine: Engine, bundle: range) -> list[Batch]:
    """Synthesises the bundle's images and commits them to the bank, in queries no silo finds too large.

    They are banked under the bundle's last round. Where a crash left the first batches in the bank, only the rest is
    added: images once committed stay.
    """
    config, bank = engine.config, engine.bank
    before = bank.answered_rows(range(engine.course.seen))
    synthesis = config.synthesis
    if len(before) and class_entropy(bank.targets[before]) < config.output.alarm_entropy:
        # the teachers call nearly everything one class: the generator has gone astray, ask about the prior instead
        synthesis = synthesis.model_copy(update={"prior_share": min(1.0, 2 * synthesis.prior_share + 0.2)})
    budget, rounds = config.queries.answers_per_silo, config.queries.rounds
    made = []
    sources: list[Source] = []
    for round_index in bundle:
        committee = [member.network for member in engine.members]
        count = budget * (round_index + 1) // rounds - budget * round_index // rounds
        facts: dict[str, Any] = {
            "round_index": round_index,
            "rounds": rounds,
            "classes": bank.classes,
            "image_shape": bank.image_shape,
            "seed": derive_seed(config.seed, "synthesis"),
            "device": engine.device,
        }
        if config.queries.recipes:
            images, pseudo_labels, generator, source = synthesise_by_recipe(synthesis, committee, count, **facts)
            sources.append(source)
        else:
            images, pseudo_labels, generator = synthesise(synthesis, committee, count, **facts)
        engine.generator = generator or engine.generator
        made.append((images, pseudo_labels))
    images, pseudo_labels = (np.concatenate(parts) for parts in zip(*made, strict=True))
    label, step = bundle.stop - 1, engine.images_per_query
    for i in range(sum(batch.count for batch in bank.round_batches(label)), len(images), step):
        batch = bank.add_batch(label, images[i : i + step], pseudo_labels[i : i + step])
        if sources:
            recipe = cut_recipe(sources, i, i + batch.count, synthesis, bank.classes, bank.image_shape)
            engine.asking.offer(batch.query_id, recipe)
    return bank.round_batches(label)


def _fit_committee(engine: Engine, reader: BankReader, round_index: int) -> None:
    """Fits on what the round sees, while its own answers are on their way."""
    config, total = engine.config.student, engine.config.steps_per_round
    pool = engine.bank.answered_rows(range(engine.course.seen))
    if len(pool) == 0:
        return
    newest = engine.bank.answered_rows(engine.course.newest)
    for index, member in enumerate(engine.members):
        share = config.fresh_share if index == 0 else 0.0  # its fellows see the bank evenly, and so differ
        for done in range(0, total, _FIT_CHUNK):
            steps = min(_FIT_CHUNK, total - done)
            seed = derive_seed(engine.config.seed, "fit", round_index, index, done)
            engine.fit(member, config, reader, pool, newest, steps, seed, fresh_share=share)
            engine.asking.pump()


def _final_fit(engine: Engine, reader: BankReader, entropy: float) -> None:
    """The student alone, on the whole bank, with the learning rate falling to zero.

    Answers still outstanding are waited for one bundle after the other, at steps fixed beforehand.
    """
    config, course, rounds = engine.config.student, engine.course, engine.config.queries.rounds
    total = engine.config.final_steps
    chunk = max(1, -(-total // _FINAL_CHUNKS))
    average = copy.deepcopy(engine.student.network) if config.average > 0 else None
    none = np.zeros(0, np.int64)
    for done in range(0, total, chunk):
        engine.asking.pump()
        pool = _see(engine, course.seen_by(done, total))
        reader.refresh()
        steps = min(chunk, total - done)
        seed = derive_seed(engine.config.seed, "final", done)
        cosine = (done, total)
        with engine.timeline.stretch("final", rounds):
            engine.fit(engine.student, config, reader, pool, none, steps, seed, cosine_from=cosine, average=average)
        if average is not None and done + steps == total:
            engine.student.network.load_state_dict(average.state_dict())
        with engine.timeline.stretch("evaluation", rounds):
            _report(engine, range(rounds - 1, rounds), "final", entropy, final_done=done + steps)
    _see(engine, course.asked)  # a final fit of no steps has waited for nothing


def _report(
    engine: Engine, bundle: range, phase: Literal["round", "final"], entropy: float, final_done: int = 0
) -> None:
    config, bank, round_index = engine.config, engine.bank, bundle.stop
    per_round = config.steps_per_round * len(engine.members) + 2 * config.synthesis.steps
    total = per_round * config.queries.rounds + config.final_steps
    share_done, seconds = (per_round * round_index + final_done) / total, engine.seconds
    line: MetricsLine = {
        "phase": phase,
        "round": round_index,
        "rounds": config.queries.rounds,
        "bank": bank.rows,
        "answers_used": max(bank.answers_of(silo) for silo in bank.silos),
        "answers_budget": config.queries.answers_per_silo,
        "entropy": round(entropy, 4),
        "alarm": entropy < config.output.alarm_entropy,
        "seconds": round(seconds, 2),
        "waiting_s": round(engine.timeline.waited_s, 2),
        "active_silos": len(engine.asking.active),
        "share_done": share_done,
        "seconds_left": round(seconds * (1 / max(share_done, 1e-6) - 1), 1),
    }
    if phase == "round":
        states = engine.asking.silos
        line["silos"] = {
            s: {"answers": bank.answers_of(s), "left": states[s].answers_left, "gone": states[s].left}
            for s in bank.silos
        }
    finished = final_done >= config.final_steps
    due = any((r + 1) % config.evaluation.every == 0 for r in bundle) if phase == "round" else finished
    if engine.evaluation is not None and due:
        predicted = predicted_classes(engine.student.network, engine.evaluation, config.evaluation.batch_size)
        line["student_accuracy"] = accuracy(predicted, engine.evaluation)
    engine.progress(line)
