"""From what is seen of models to rows of the audit: how well each attack tells members from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks import guesses_from, lira_offline, lira_online, rmia, roc
from fedcpsc.audit.bounds import one_run_epsilon, one_run_mu
from fedcpsc.audit.claims import Unit
from fedcpsc.audit.observe import Seen
from fedcpsc.audit.plan import AttackName
from fedcpsc.audit.reach import planned_guesses, reachable_epsilon, reachable_mu
from fedcpsc.errors import AuditError, explain

__all__ = [
    "attack_each_in_turn",
    "attack_one",
    "attacks_on",
    "bound",
    "canary_scores",
    "check_coins",
    "check_enough",
    "of_images",
    "per_unit",
    "row",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SCORES_A_FALSE_POSITIVE = 10
_CURVE_POINTS = 60


def attacks_on(seen: Seen, wanted: Sequence[AttackName]) -> list[AttackName]:
    """Those of `wanted` that make sense: with labels alone there is no loss, with probabilities none need views."""
    senseless = {"loss", "rmia"} if seen.loss is None else {"label_only"}
    return [name for name in wanted if name not in senseless]


def attack_one(
    name: AttackName, target: Seen, references: Seen, member: Bools, their: Seen, theirs: Seen, model: int = 0
) -> Floats:
    """One model's scores [N].

    Args:
        name: the attack.
        target: seen of the targets, of which `model` is attacked.
        references: seen of the attacker's shadows [S, N].
        member: what those were trained on [S, N].
        their: the targets on the population [*, P], images that no model was trained on.
        theirs: the shadows on the population [S, P].
        model: which of the targets.
    """
    if name in ("loss", "label_only"):
        plain = target.statistic if target.loss is None else target.loss
        scores: Floats = plain[model]
        return scores
    if name == "rmia":
        likelihoods = (their.likelihood[model], theirs.likelihood)
        return rmia(target.likelihood[model], references.likelihood, member, *likelihoods)
    attack = lira_online if name == "lira_online" else lira_offline
    return attack(target.statistic[model], references.statistic, member)


def attack_each_in_turn(name: AttackName, seen: Seen, member: Bools, population: Seen) -> Floats:
    """Every shadow's scores [S, N], with all the others as references, as the LiRA repository does."""
    scores = []
    for model in range(len(member)):
        others = np.arange(len(member)) != model
        scores.append(
            attack_one(name, seen, _of(seen, others), member[others], population, _of(population, others), model)
        )
    return np.stack(scores)


def row(scores: Floats, truth: Bools, fprs: Sequence[float], **facts: Any) -> dict[str, Any]:
    """A row of `audit.json`: AUC, its spread over targets, TPR at each FPR, and the curve on a grid.

    Args:
        scores: of all targets [M, N].
        truth: who was a member [M, N].
        fprs: asked for.
        facts: policy, surface, attack and so on.

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
        each: of them, those of one model.
        fprs: asked for.
        remedy: how to have more.
    """
    needed = math.ceil(_SCORES_A_FALSE_POSITIVE / min(fprs) - 1e-9)
    if non_members < needed:
        least = _SCORES_A_FALSE_POSITIVE / max(non_members, 1)
        constraint = f"needs {needed:,} scores of non-members, there are {non_members:,} ({each:,} a model)"
        raise AuditError(explain("fprs", min(fprs), constraint, f"{remedy}, or ask for {least:.2g} or more"))


def canary_scores(seen: Seen, member: Bools, population: Seen, audited: int) -> Floats:
    """LiRA's scores of the first `audited` shadows on the canaries [A, C], with the other shadows as references.

    Each (shadow, canary) pair is one independent coin that touches one training alone, so the trainings side by side
    are one mechanism with A * C canaries (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846, whose theorem asks no
    more). The attacker may know the references' coins; the audited shadows' own never enter a score.

    Args:
        seen: of all shadows on the canaries [S, C].
        member: their coins [S, C].
        population: of all shadows [S, P].
        audited: A < S.
    """
    first = np.arange(len(member)) < audited
    target, references = _of(seen, first), _of(seen, ~first)
    their, theirs = _of(population, first), _of(population, ~first)
    scores = [
        attack_one("lira_online", target, references, member[~first], their, theirs, model) for model in range(audited)
    ]
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
) -> dict[str, Any]:
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


def of_images(seen: Seen, images: Bools) -> Seen:
    """The same models on some of the images."""
    loss = None if seen.loss is None else seen.loss[:, images]
    return Seen(seen.statistic[:, images], seen.likelihood[:, images], loss)


def _of(seen: Seen, models: Bools) -> Seen:
    loss = None if seen.loss is None else seen.loss[models]
    return Seen(seen.statistic[models], seen.likelihood[models], loss)
