"""The round loop: synthesise -> ask -> fit on what is banked while the silos work -> bank -> checkpoint."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.answer_bank import AnswerBank, Batch
from fedcpsc.distillation.asking import Asking
from fedcpsc.distillation.checkpoint import load_checkpoint, save_checkpoint
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.steps import BankReader, Member, fit, make_committee
from fedcpsc.distillation.synthesis import make_generator, synthesise
from fedcpsc.distillation.targets import TargetKeeper, class_entropy
from fedcpsc.errors import FederationError, explain
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.seeding import derive_seed

__all__ = ["Engine", "Progress", "run_rounds"]

Progress = Callable[[dict[str, Any]], None]

_FINAL_CHUNKS = 20  # progress lines of the final fit
_FIT_CHUNK = 10  # steps between two looks at the post


@dataclass
class Engine:
    """What the rounds work on.

    Attributes:
        images_per_query: the most that every silo takes at once.
        progress: called with one mapping a round, see `run.py`.
    """

    config: RunConfig
    bank: AnswerBank
    asking: Asking
    targets: TargetKeeper
    device: torch.device
    folder: Path
    images_per_query: int
    evaluation: ImageSet | None
    progress: Progress
    members: list[Member] = field(default_factory=list)
    generator: ConditionalGenerator | None = None
    seconds_before: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def student(self) -> Member:
        """The committee's first member."""
        return self.members[0]

    @property
    def seconds(self) -> float:
        """Spent on the run, earlier attempts counted in."""
        return self.seconds_before + time.monotonic() - self.begun


def run_rounds(engine: Engine) -> None:
    """Runs, or goes on with, all rounds and the final fit; `engine.student` is then the product.

    Raises:
        FederationError: where no silo has answered anything.
    """
    config, bank, asking = engine.config, engine.bank, engine.asking
    reader = BankReader(bank, engine.device)
    engine.members = make_committee(config.student, bank.classes, bank.image_shape, config.seed, engine.device)
    found = load_checkpoint(engine.folder, engine.members, engine.device)
    start, engine.seconds_before, asking.waited_s = found.next_round, found.seconds, found.waited
    if found.generator is not None:
        engine.generator = make_generator(config.synthesis, bank.classes, bank.image_shape, seed=0).to(engine.device)
        engine.generator.load_state_dict(found.generator)
    asking.ask([batch for batch in bank.batches if batch.round < start])  # what a crash left unanswered
    entropy = 1.0
    for round_index in range(start, config.queries.rounds):
        engine.targets.refresh()
        asking.ask(_round_batches(engine, round_index))
        reader.refresh()
        _fit_committee(engine, reader, round_index)
        asking.wait(config.queries.deadline_s, config.queries.quorum)
        engine.targets.refresh()
        answered = bank.answered_rows(range(round_index + 1))
        if len(answered) == 0:
            why = {silo: state.left or dict(state.refusals) for silo, state in asking.silos.items()}
            raise FederationError(explain("answers", 0, f"no silo answered: {why}", "ask the silos' owners"))
        entropy = class_entropy(bank.targets[answered])
        save_checkpoint(
            engine.folder, engine.members, engine.generator, round_index + 1, engine.seconds, asking.waited_s
        )
        _report(engine, round_index + 1, "round", entropy)
        if not asking.active:
            break  # every budget is spent: what is banked is what there is
    engine.targets.refresh()  # a run resumed after its last round has not been through the loop
    reader.refresh()
    _final_fit(engine, reader, entropy)


def _round_batches(engine: Engine, round_index: int) -> list[Batch]:
    """Synthesises the round's images and commits them to the bank, in queries no silo finds too large.

    Where a crash left the round's first batches in the bank, only the rest is added: images once committed stay.
    """
    config, bank = engine.config, engine.bank
    before = bank.answered_rows(range(round_index))
    synthesis = config.synthesis
    if len(before) and class_entropy(bank.targets[before]) < config.output.alarm_entropy:
        # the teachers call nearly everything one class: the generator has gone astray, ask about the prior instead
        synthesis = synthesis.model_copy(update={"prior_share": min(1.0, 2 * synthesis.prior_share + 0.2)})
    budget, rounds = config.queries.answers_per_silo, config.queries.rounds
    count = budget * (round_index + 1) // rounds - budget * round_index // rounds
    images, pseudo_labels, generator = synthesise(
        synthesis,
        [member.network for member in engine.members],
        count,
        round_index=round_index,
        rounds=rounds,
        classes=bank.classes,
        image_shape=bank.image_shape,
        seed=derive_seed(config.seed, "synthesis"),
        device=engine.device,
    )
    engine.generator = generator or engine.generator
    step = engine.images_per_query
    for i in range(sum(batch.count for batch in bank.round_batches(round_index)), count, step):
        bank.add_batch(round_index, images[i : i + step], pseudo_labels[i : i + step])
    return bank.round_batches(round_index)


def _fit_committee(engine: Engine, reader: BankReader, round_index: int) -> None:
    """Fits on the rounds before this one, while this one's answers are on their way."""
    config = engine.config.student
    pool = engine.bank.answered_rows(range(round_index))
    if len(pool) == 0:
        return
    newest = engine.bank.answered_rows(range(round_index - 1, round_index))
    for index, member in enumerate(engine.members):
        share = config.fresh_share if index == 0 else 0.0  # its fellows see the bank evenly, and so differ
        for done in range(0, config.steps_per_round, _FIT_CHUNK):
            steps = min(_FIT_CHUNK, config.steps_per_round - done)
            seed = derive_seed(engine.config.seed, "fit", round_index, index, done)
            fit(member, config, reader, pool, newest, steps, seed, fresh_share=share)
            engine.asking.pump()


def _final_fit(engine: Engine, reader: BankReader, entropy: float) -> None:
    """The student alone, on the whole bank, with the learning rate falling to zero."""
    config = engine.config.student
    pool = engine.bank.answered_rows()
    chunk = max(1, -(-config.final_steps // _FINAL_CHUNKS))
    average = copy.deepcopy(engine.student.network) if config.average > 0 else None
    for done in range(0, config.final_steps, chunk):
        steps = min(chunk, config.final_steps - done)
        seed = derive_seed(engine.config.seed, "final", done)
        cosine = (done, config.final_steps)
        fit(
            engine.student,
            config,
            reader,
            pool,
            np.zeros(0, np.int64),
            steps,
            seed,
            cosine_from=cosine,
            average=average,
        )
        if average is not None and done + steps == config.final_steps:
            engine.student.network.load_state_dict(average.state_dict())
        _report(engine, engine.config.queries.rounds, "final", entropy, final_done=done + steps)


def _report(engine: Engine, round_index: int, phase: str, entropy: float, final_done: int = 0) -> None:
    config, bank = engine.config, engine.bank
    line: dict[str, Any] = {
        "phase": phase,
        "round": round_index,
        "rounds": config.queries.rounds,
        "bank": bank.rows,
        "answers_used": max(bank.answers_of(silo) for silo in bank.silos),
        "answers_budget": config.queries.answers_per_silo,
        "entropy": round(entropy, 4),
        "alarm": entropy < config.output.alarm_entropy,
        "seconds": round(engine.seconds, 2),
        "waiting_s": round(engine.asking.waited_s, 2),
        "active_silos": len(engine.asking.active),
    }
    if phase == "round":
        states = engine.asking.silos
        line["silos"] = {
            s: {"answers": bank.answers_of(s), "left": states[s].answers_left, "gone": states[s].left}
            for s in bank.silos
        }
    per_round = config.student.steps_per_round * len(engine.members) + 2 * config.synthesis.steps
    total = per_round * config.queries.rounds + config.student.final_steps
    line["share_done"] = (per_round * round_index + final_done) / total
    line["seconds_left"] = round(engine.seconds * (1 / max(line["share_done"], 1e-6) - 1), 1)
    finished = final_done >= config.student.final_steps
    due = round_index % config.evaluation.every == 0 if phase == "round" else finished
    if engine.evaluation is not None and due:
        predicted = predicted_classes(engine.student.network, engine.evaluation, config.evaluation.batch_size)
        line["student_accuracy"] = accuracy(predicted, engine.evaluation)
    engine.progress(line)
