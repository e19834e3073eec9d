# SPDX-License-Identifier: Apache-2.0
"""`audit.json`, part by part, as types.

The key `policy` names what is attacked: a policy where the audit is from scratch, a silo (or "run", for the student of
all) where it is over a finished run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from fedcpsc.audit.plan import Surface

__all__ = [
    "AccountedBound",
    "Accuracy",
    "AuditFile",
    "AuditRow",
    "Bound",
    "Curve",
    "Findings",
    "FoundBound",
    "Held",
    "HeldReach",
    "ModelFacts",
    "Place",
    "Plot",
    "Reach",
    "RowFacts",
    "RunExtras",
    "Unit",
    "Unjudged",
    "Verdict",
]

Unit: TypeAlias = Literal["record", "person"]


class Place(TypedDict):
    """What is attacked.

    Attributes:
        policy: name of the policy, or of the silo.
        surface: model that is attacked.
        answers: number of answers that a student was fitted to; None for a teacher.
    """

    policy: str
    surface: Surface
    answers: int | None


class RowFacts(Place):
    """What a row is about.

    Attributes:
        claimed_epsilon: epsilon that is claimed; None for no claim.
        attack: name of the attack.
    """

    claimed_epsilon: float | None
    attack: str


class Curve(TypedDict):
    """Points of a ROC curve: false positive rates, and the true positive rate at each."""

    fpr: list[float]
    tpr: list[float]


class AuditRow(RowFacts):
    """How well one attack separates members from the others.

    Attributes:
        auc: area under the ROC curve of all targets, in [0, 1].
        auc_std: standard deviation of the area over targets; None for a single target.
        tpr_at: true positive rate by false positive rate.
        targets: number of attacked models.
        members: number of scores of members.
        non_members: number of scores of the others.
        curve: ROC curve on a grid.
    """

    auc: float
    auc_std: float | None
    tpr_at: dict[str, float]
    targets: int
    members: int
    non_members: int
    curve: Curve


class Reach(TypedDict):
    """A bound, and the largest that it could have been.

    Attributes:
        unit: what one canary is.
        canaries: number of canaries.
        guesses: number of guesses about them.
        delta: parameter of the claim, in (0, 1).
        confidence: confidence of this bound alone, in (0, 1).
        epsilon: lower bound on epsilon, >= 0.
        reachable_epsilon: lower bound that all guesses being right would make.
    """

    unit: Unit
    canaries: int
    guesses: int
    delta: float
    confidence: float
    epsilon: float
    reachable_epsilon: float


class FoundBound(Reach):
    """A bound as it was measured.

    Attributes:
        correct: number of right guesses.
        mu: lower bound on mu, for mechanisms that are Gaussian.
        reachable_mu: lower bound on mu that all guesses being right would make.
    """

    correct: int
    mu: float
    reachable_mu: float


class Held(TypedDict):
    """A bound compared with a claim.

    Attributes:
        claimed_epsilon: epsilon that is claimed; None for no claim.
        claimed_unit: unit that the claim protects; None for no claim.
        guessed_share: share of the canaries that was guessed at, in (0, 1].
        outcome: outcome in words (`claims`); None for no claim.
        testable: whether the claim could have been refuted; None for no claim.
        guesses_needed: number of right guesses that would refute it; None where no number would.
        violated: whether it was refuted.
    """

    claimed_epsilon: float | None
    claimed_unit: Unit | None
    guessed_share: float
    outcome: str | None
    testable: bool | None
    guesses_needed: int | None
    violated: bool


class HeldReach(Reach, Held):
    """What the outcome of a bound is worded from."""


class Bound(Place, FoundBound, Held):
    """A bound of `audit.json`.

    Attributes:
        attack: name of the attack whose guesses made it.
    """

    attack: str


class AccountedBound(Bound):
    """A bound of an audit from scratch.

    Attributes:
        accounted_epsilon: epsilon that the accountant proves of the training; None where there is none.
    """

    accounted_epsilon: float | None


class Accuracy(TypedDict):
    """Mean over models, and standard deviation; None for a single model."""

    mean: float
    std: float | None


class ModelFacts(Place):
    """How well a model works.

    Attributes:
        accuracy: accuracy on held-out images, in [0, 1].
        agreement: share of the held-out images on which student and teacher agree.
        kl: mean KL(teacher || student), in nats.
    """

    accuracy: Accuracy
    agreement: NotRequired[float]
    kl: NotRequired[float]


class Plot(TypedDict):
    """A picture.

    Attributes:
        file: path of the picture in the audit's folder.
        title: title of the picture.
        alt: text for those who cannot see it.
        private: whether it shows private images.
        silo: name of the silo whose images it shows.
    """

    file: str
    title: str
    alt: str
    private: bool
    silo: NotRequired[str]


class Verdict(TypedDict):
    """What the audit says.

    Attributes:
        violation: whether a claim was refuted.
        testable: whether every claim could have been refuted.
        text: verdict in words.
    """

    violation: bool
    testable: bool
    text: str


class RunExtras(TypedDict, total=False):
    """What the audit of a finished run says besides membership, a row for each silo or point of a curve.

    Attributes:
        copying: nearness of query images to private ones.
        label_mix: guessed class shares.
        stealing: likeness of copies to their teachers.
    """

    copying: list[Mapping[str, Any]]
    label_mix: list[Mapping[str, Any]]
    stealing: list[Mapping[str, Any]]


class Findings(TypedDict):
    """What a verdict follows from: attacks and bounds."""

    rows: list[AuditRow]
    bounds: list[Bound]


class Unjudged(Findings, RunExtras):
    """An audit without its verdict and its pictures.

    Attributes:
        schema: number of the schema.
        kind: "run" over a finished run, "scratch" otherwise.
        config: plan of the audit.
        facts: facts of the setting.
        versions: version of each package.
        commit: commit of the code; None where it is not known.
        seeds: seeds by what they are for.
        seconds: time spent on all stages.
        models: accuracy and agreement of what was attacked.
    """

    schema: int
    kind: str
    config: dict[str, Any]
    facts: Mapping[str, Any]
    versions: dict[str, str]
    commit: str | None
    seeds: dict[str, int]
    seconds: float
    models: list[ModelFacts]


class AuditFile(Unjudged):
    """Content of `audit.json`."""

    verdict: Verdict
    plots: list[Plot]
