# SPDX-License-Identifier: Apache-2.0
"""What a lie does: to the targets of a bank and the silos' ensemble, and to a student fitted to them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.dishonest.attacks import keep_and_lie
from benchmarks.dishonest.worlds import World, banked, views
from fedcpsc.aggregation.reputation import Standing
from fedcpsc.aggregation.rule import RULES, Floats
from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.seeding import derive_seed

__all__ = ["PEAK", "PLAIN_PEAK", "RULES_TRIED", "Outcome", "Rule", "adapted", "ensembles", "named", "spread", "student"]

_TRIGGERED = 0


@dataclass(frozen=True)
class Rule:
    """A rule, and whether silos are judged by their answers."""

    rule: str
    robust: bool

    @property
    def name(self) -> str:
        """As figures are found by."""
        return self.rule + (" robust" if self.robust else "")


PEAK, PLAIN_PEAK = Rule("answer_peak_log", True), Rule("answer_peak_log", False)
RULES_TRIED = (
    PEAK,
    PLAIN_PEAK,
    Rule("class_prior_log", True),
    Rule("class_prior_log", False),
    Rule("uniform", True),
    Rule("uniform", False),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one bank.

    Attributes:
        right: whether each held-out image is taken for its class, bool [V].
        backdoor: share, in percent, of held-out images with the trigger that are taken for its class and are not.
        standing: the silos' standing; None where they were not judged.
        targets: class of each target of the bank, int64 [n].
    """

    right: np.ndarray[Any, np.dtype[np.bool_]]
    backdoor: float
    standing: Standing | None
    targets: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def accuracy(self) -> float:
        """On held-out images, in percent."""
        return 100 * float(self.right.mean())


def ensembles(world: World, said: Floats, counts: Floats, rules: Sequence[Rule]) -> list[Outcome]:
    """Outcome of a bank under each rule, of the silos' own ensemble.

    Args:
        world: world whose images are asked.
        said: answers of the silos that take part, [S', N, K].
        counts: class counts that they report, [S', K].
        rules: rules to try.
    """
    with banked(world, said) as bank:
        found = []
        for rule in rules:
            keeper = _kept(bank, rule, counts)
            later = said[:, world.asked :]
            pooled = aggregate(
                later,
                np.ones(later.shape[:2], bool),
                RULES.get(rule.rule),
                counts=keeper.counts,
                standing=keeper.standing,
                smoothing=keeper.smoothing,
            )
            found.append(_outcome(world, pooled, keeper.standing, bank))
        return found


def student(world: World, said: Floats, counts: Floats, rule: Rule, seed: int, steps: int) -> Outcome:
    """The same of one student, fitted to the targets that the rule makes of the bank."""
    config = world.config.student
    with banked(world, said) as bank:
        keeper = _kept(bank, rule, counts)
        device = torch.device("cpu")
        alone = config.model_copy(update={"committee": 1})
        (member,) = make_committee(alone, bank.classes, bank.image_shape, seed, device)
        pool, none = bank.answered_rows(), np.zeros(0, np.int64)
        drawn = derive_seed(seed, "benchmark fit")
        fit(member, config, BankReader(bank, device), pool, none, steps, drawn, cosine_from=(0, steps))
        return _outcome(world, predict(member.network, world.images[world.asked :], 500), keeper.standing, bank)


def adapted(world: World, liars: Sequence[int], seed: int, rule: Rule, honest: Standing | None) -> tuple[str, Floats]:
    """What liars who know the rule say, and which member of their family it is: the one that leaves least accuracy.

    They see the accuracy on held-out images, which no silo could: this bounds from above what a guess can do.

    Args:
        world: world in which they lie.
        liars: numbers of the silos that lie.
        seed: seed of the world.
        rule: rule that they know.
        honest: what the rule makes of the silos while all are honest.
    """
    known = np.ones(world.said.shape[::2]) if honest is None else honest.support * honest.surest
    families = [
        keep_and_lie(view, np.argsort(-known[liar], kind="stable"))
        for liar, view in zip(liars, views(world, liars, seed), strict=True)
    ]
    worst: tuple[float, str, Floats] | None = None
    for told in zip(*families, strict=True):
        said = world.said.copy()
        for liar, (_, answers) in zip(liars, told, strict=True):
            said[liar] = answers
        (outcome,) = ensembles(world, said, world.counts, [rule])
        if worst is None or outcome.accuracy < worst[0]:
            worst = outcome.accuracy, told[0][0], said
    assert worst is not None
    return worst[1:]


def named(standing: Standing | None, liars: Sequence[int]) -> dict[str, list[bool]]:
    """Of each liar whether it is named and whether no silo has less reputation; of each other whether it is accused."""
    if standing is None:
        return {}
    suspected = [word is not None for word in standing.suspicions()]
    lowest = standing.reputation <= standing.reputation.min() + 1e-6
    return {
        "named": [suspected[s] for s in liars],
        "lowest": [bool(lowest[s]) for s in liars],
        "accused": [one for s, one in enumerate(suspected) if s not in liars],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and worst of differences to what is hoped for."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 2), "std": round(deviation, 2), "worst": round(min(values), 2)}


def _kept(bank: AnswerBank, rule: Rule, counts: Floats) -> TargetKeeper:
    reported = counts if RULES.get(rule.rule).needs_class_reports else None
    keeper = TargetKeeper(bank, AggregationConfig(rule=rule.rule, robust=rule.robust), reported)
    keeper.refresh()
    return keeper


def _outcome(world: World, answers: Floats, standing: Standing | None, bank: AnswerBank) -> Outcome:
    classes = answers.argmax(1)
    clean, triggered = classes[: len(world.labels)], classes[len(world.labels) :]
    fooled = triggered[world.labels != _TRIGGERED] == _TRIGGERED
    targets = np.asarray(bank.targets.argmax(1), np.int64)
    return Outcome(clean == world.labels, 100 * float(fooled.mean()), standing, targets)
