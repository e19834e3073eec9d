# SPDX-License-Identifier: Apache-2.0
"""From what is seen of models to rows of the audit: how well each attack separates members from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import ATTACKS, Attack
from fedcpsc.audit.bounds import one_run_epsilon, one_run_mu
from fedcpsc.audit.figures import AuditRow, FoundBound, RowFacts, Unit
from fedcpsc.audit.observations import Evidence, Observations
from fedcpsc.audit.plan import BOUND_ATTACK
from fedcpsc.audit.reach import planned_guesses, reachable_epsilon, reachable_mu
from fedcpsc.audit.roc import guesses_from, roc
from fedcpsc.errors import AuditError, explain

__all__ = [
    "attack_each_in_turn",
    "attacks_on",
    "bound",
    "canary_scores",
    "check_coins",
    "check_enough",
    "per_unit",
    "row",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SCORES_A_FALSE_POSITIVE = 10
_CURVE_POINTS = 60


def attacks_on(observed: Observations, wanted: Sequence[str]) -> list[Attack]:
    """Those of the attacks `wanted` that work on what is out: probabilities, or labels alone.

    Args:
        observed: observations of the models that are attacked.
        wanted: names of attacks.

    Raises:
        ConfigError: an unknown name.
    """
    return [attack for attack in map(ATTACKS.get, wanted) if attack.works_on(labels_only=observed.labels_only)]


def attack_each_in_turn(attack: Attack, observed: Observations, member: Bools, population: Observations) -> Floats:
    """Every shadow's scores [S, N], with all the others as references, as the LiRA repository does.

    Args:
        attack: attack to run.
        observed: observations of the shadows [S, N].
        member: whether shadow s was trained with image i [S, N].
        population: observations of the shadows on the population [S, P].

    Raises:
        AuditError: where there are too few shadows.
    """
    scores = []
    for model in range(len(member)):
        others = np.arange(len(member)) != model
        evidence = Evidence(
            target=observed.of_model(model),
            references=observed.of_models(others),
            member=member[others],
            target_population=population.of_model(model),
            reference_population=population.of_models(others),
        )
        scores.append(attack.scores(evidence))
    return np.stack(scores)


def row(scores: Floats, truth: Bools, fprs: Sequence[float], facts: RowFacts) -> AuditRow:
    """A row of `audit.json`: AUC, its spread over targets, TPR at each FPR, and the curve on a grid.

    Args:
        scores: scores of all targets [M, N].
        truth: whether image i was a member of target m [M, N].
        fprs: false positive rates asked for, in (0, 1).
        facts: policy, surface, answers, claim and attack of the row.

    Raises:
        AuditError: too few non-members.
    """
    pooled = roc(scores.ravel(), truth.ravel())
    each = [roc(scores[model], truth[model]).auc for model in range(len(scores))]
    grid = np.geomspace(10 / pooled.non_members, 1, _CURVE_POINTS)
    return {
        **facts,
        "auc": pooled.auc,
        "auc_std": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "tpr_at": {f"{fpr:g}": pooled.tpr_at(fpr) for fpr in fprs},
        "targets": len(scores),
        "members": pooled.members,
        "non_members": pooled.non_members,
        "curve": {"fpr": grid.tolist(), "tpr": [pooled.tpr_at(float(fpr)) for fpr in grid]},
    }


def check_enough(non_members: int, each: int, fprs: Sequence[float], remedy: str) -> None:
    """Raises AuditError where a false positive rate would rest on fewer than ten scores.

    Args:
        non_members: scores of non-members there will be.
        each: number of them that are one model's.
        fprs: false positive rates asked for, in (0, 1).
        remedy: how to have more.
    """
    needed = math.ceil(_SCORES_A_FALSE_POSITIVE / min(fprs) - 1e-9)
    if non_members < needed:
        least = _SCORES_A_FALSE_POSITIVE / max(non_members, 1)
        constraint = f"needs {needed:,} scores of non-members, there are {non_members:,} ({each:,} a model)"
        raise AuditError(explain("fprs", min(fprs), constraint, f"{remedy}, or ask for {least:.2g} or more"))


def canary_scores(observed: Observations, member: Bools, population: Observations, audited: int) -> Floats:
    """Scores of the first `audited` shadows on the canaries [A, C], with the other shadows as references.

    Each (shadow, canary) pair is one independent coin that touches one training alone, so the trainings side by side
    are one mechanism with A * C canaries (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846, whose theorem asks no
    more). The attacker may know the references' coins; the audited shadows' own never enter a score.

    Args:
        observed: observations of all shadows on the canaries [S, C].
        member: coins of all shadows [S, C].
        population: observations of all shadows on the population [S, P].
        audited: number of audited shadows A, < S.
    """
    references = np.arange(len(member)) >= audited
    attack, scores = ATTACKS.get(BOUND_ATTACK), []
    for model in range(audited):
        evidence = Evidence(
            target=observed.of_model(model),
            references=observed.of_models(references),
            member=member[references],
            target_population=population.of_model(model),
            reference_population=population.of_models(references),
        )
        scores.append(attack.scores(evidence))
    return np.stack(scores)


def check_coins(member: Bools, remedy: str) -> None:
    """Raises AuditError where an image has fewer than two shadows with it, or without: one may be the target.

    Args:
        member: coins [S, N].
        remedy: how to have more.
    """
    least = int(np.minimum(member.sum(0), (~member).sum(0)).min())
    if least < 2:
        constraint = f"an image has only {least} of them with it or without it; each needs 2"
        raise AuditError(explain("shadows", len(member), constraint, remedy))


def per_unit(scores: Floats, unit_of_record: npt.NDArray[np.int64]) -> Floats:
    """One score for each canary unit: the mean over its records, which one coin let into the training or kept out.

    Args:
        scores: one for each record of the canaries [R].
        unit_of_record: index of each record's canary unit [R], every one of 0..U-1 at least once.

    Returns:
        float64 [U].

    Raises:
        AuditError: where the shapes do not fit, or a unit has no record.
    """
    counts = np.bincount(unit_of_record) if len(unit_of_record) else np.zeros(0, np.int64)
    if scores.shape != unit_of_record.shape or not counts.all():
        got = (scores.shape, unit_of_record.shape, int((counts == 0).sum()))
        wanted = "must be [R], [R], with no unit without a record"
        remedy = "pass the canaries' own unit_of_record"
        raise AuditError(explain("scores, unit_of_record, empty units", got, wanted, remedy))
    means: Floats = np.bincount(unit_of_record, weights=scores, minlength=len(counts)) / counts
    return means


def bound(
    scores: Floats, coins: Bools, guessed: float, delta: float, confidence: float, unit: Unit = "record"
) -> FoundBound:
    """A lower bound on epsilon and mu from canaries whose coins the attacker does not know, and the largest possible.

    | canaries | what is returned |
    |---|---|
    | none, or one | no guess: bounds of 0 that could have been nothing else |
    | two or more | `reach.planned_guesses` of them are guessed at |

    Args:
        scores: one for each coin, any shape, also empty.
        coins: what they said, the same shape.
        guessed: share of them guessed at, half as members and half as not; fixed beforehand, in (0, 1].
        delta: delta of the claim.
        confidence: confidence of this bound alone.
        unit: what one coin decides about.
    """
    half = planned_guesses(scores.size, guessed)
    guesses, correct = guesses_from(scores.ravel(), coins.ravel(), *half) if sum(half) else (0, 0)
    return {
        "unit": unit,
        "canaries": scores.size,
        "guesses": guesses,
        "correct": correct,
        "delta": delta,
        "confidence": confidence,
        "epsilon": one_run_epsilon(scores.size, guesses, correct, delta, confidence) if guesses else 0.0,
        "reachable_epsilon": reachable_epsilon(scores.size, guesses, delta, confidence),
        "mu": one_run_mu(scores.size, guesses, correct, confidence) if guesses else 0.0,
        "reachable_mu": reachable_mu(scores.size, guesses, confidence),
    }
