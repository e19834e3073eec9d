# SPDX-License-Identifier: Apache-2.0
"""What an audit does: typed, frozen, strict, fixed before anything is looked at. Torch-free.

A file such as `configs/audit_digits.yaml` holds only what differs from the defaults below.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from fedcpsc.audit.attacks.attack import ATTACKS
from fedcpsc.choices import DEFAULT_ATTACKS
from fedcpsc.errors import explain
from fedcpsc.silo_config import DataConfig, Mixture
from fedcpsc.typed_yaml import OneOf, Strict

__all__ = [
    "BOUND_ATTACK",
    "AuditConfig",
    "CanariesPlan",
    "DpSgdAudit",
    "FormAudit",
    "PolicyAudit",
    "ShadowsPlan",
    "StudentsPlan",
    "Surface",
]

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Surface: TypeAlias = Literal["teacher", "student"]

BOUND_ATTACK: Final = "lira_online"
"""Attack whose scores make the bounds, and the curve of a student's leakage: fixed before anything is looked at."""


class ShadowsPlan(Strict):
    """The shadow teachers. Each serves in turn as the target, with all others as the attacker's references.

    Attributes:
        count: number of shadows, trained in one batch.
        architecture: "mlp": one hidden layer; "convnet": two convolutions without batch norm, ten times as slow.
        width: units of the hidden layer, or channels of the first convolution.
        epochs: passes over half the pool.
        batch_size, learning_rate, weight_decay: parameters of Adam; the learning rate falls to 0.
    """

    count: Annotated[int, Field(ge=4, le=4096)] = 64
    architecture: Literal["mlp", "convnet"] = "mlp"
    width: Positive = 128
    epochs: Positive = 60
    batch_size: Positive = 32
    learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class StudentsPlan(Strict):
    """The shadow students: each fitted to its own shadow teacher's answers on one set of images of the public priors.

    Attributes:
        answers: images asked; a student is fitted for each number, and the last is the one in the tables.
        architecture, width: network of the students, as in `shadows`.
        steps, batch_size, learning_rate, noise: parameters of the fit, as in a run's `student`.
        prior: mixture of procedural priors, as in a run's `synthesis`.
        mean: public mean of the domain's pixels, in [-1, 1], as the first of `synthesis.moments`.
    """

    answers: tuple[Positive, ...] = (250, 1000, 4000)
    architecture: Literal["mlp", "convnet"] = "mlp"
    width: Positive = 128
    steps: Positive = 1500
    batch_size: Positive = 64
    learning_rate: Rate = 2e-3
    noise: Annotated[float, Field(ge=0)] = 0.05
    prior: Mixture = Field(default_factory=lambda: {"smooth": 1.0})
    mean: Annotated[float, Field(gt=-1, lt=1)] | None = None

    @field_validator("answers")
    @classmethod
    def _rising(cls, answers: tuple[int, ...]) -> tuple[int, ...]:
        if not answers or list(answers) != sorted(set(answers)):
            raise ValueError(explain("answers", answers, "must rise", "for example [250, 1000, 4000]"))
        return answers


class FormAudit(Strict):
    """A plainly trained teacher behind one answer form.

    Attributes:
        kind: the form.
        bits: 8 or 32, as in a policy.
        top_k: classes shown, for `top_k` alone.
    """

    kind: Literal["probabilities", "top_k", "label"]
    bits: Literal[8, 32] = 8
    top_k: Positive = 3

    @property
    def name(self) -> str:
        """Short and unique among different policies."""
        if self.kind == "label":
            return "label"
        shown = f"top-{self.top_k}" if self.kind == "top_k" else "probabilities"
        return shown if self.bits == 8 else f"{shown} ({self.bits} bits)"

    @property
    def claimed(self) -> float | None:
        """None: nothing is claimed of it."""
        return None


class DpSgdAudit(Strict):
    """A teacher trained by DP-SGD, whose probabilities are answered.

    Attributes:
        epsilon, delta: the claim, per record under add/remove.
        width: width of the shadows; None takes that of the plainly trained. Fewer weights need less noise.
        max_grad_norm, epochs, batch_size, learning_rate: parameters of the training; batches are Poisson, of that mean.
        noise_multiplier: None: what the accountant finds necessary. Another value is trained with as it is while the
            claim stays: for showing that the audit sees a training that does not keep its claim.
        bits: bits of an answered probability, 8 or 32.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    epsilon: Annotated[float, Field(gt=0, le=1000)]
    delta: OpenShare = 1e-5
    width: Positive | None = None
    max_grad_norm: Rate = 1.0
    epochs: Positive = 20
    batch_size: Positive = 128
    learning_rate: Rate = 4e-3
    noise_multiplier: Annotated[float, Field(ge=0)] | None = None
    bits: Literal[8, 32] = 8

    @property
    def name(self) -> str:
        """Short and unique among different policies."""
        forced = "" if self.noise_multiplier is None else f", noise {self.noise_multiplier:g}"
        return f"DP-SGD {self.epsilon:g}{forced}"

    @property
    def claimed(self) -> float | None:
        """epsilon."""
        return self.epsilon


PolicyAudit: TypeAlias = Annotated[FormAudit | DpSgdAudit, Field(discriminator="kind")]


class CanariesPlan(Strict):
    """Mislabelled records that make a bound: planted by independent coin flips, guessed at by numbers fixed here.

    Attributes:
        count: records of the pool that are given another label; 0 makes no bound.
        audited: the first so many shadows are guessed about; the others are the attacker's references, whose own coin
            flips it knows.
        guesses: share of all (shadow, canary) pairs guessed at, half as members and half as not.
        confidence: confidence that no bound of this audit exceeds the truth.
    """

    count: Annotated[int, Field(ge=0)] = 100
    audited: Positive = 16
    guesses: Annotated[float, Field(gt=0, le=1)] = 0.1
    confidence: OpenShare = 0.95


class AuditConfig(Strict):
    """All of an audit.

    Attributes:
        name: name of the audit's folder under `root`, where `--out` names none.
        seed: seed of everything random, shadows' DP-SGD noise included: they are never released.
        data: data set, as in a run; the held-out images are the attacker's population, which no shadow ever sees.
        pool: records of the training split that coins are flipped for; None takes all.
        shadows: the teachers that are trained and attacked.
        students: what is distilled from each.
        policies: policies to compare; over a finished run they are the silos' own.
        surfaces: models to attack: "teacher" for the silos' own models, "student" for what is distilled from
            them. Over a finished run, the generator and the query images are always looked at.
        attacks: attacks to run; those that cannot work on what a policy lets out are left out.
        fprs: false positive rates of the reported true positive rates; each needs 10 / rate scores of non-members.
        canaries: what makes the bounds on epsilon.
    """

    name: str = Field("audit", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    root: str = "audits"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    data: DataConfig = DataConfig()
    pool: Annotated[int, Field(ge=20)] | None = None
    shadows: ShadowsPlan = ShadowsPlan()
    students: StudentsPlan = StudentsPlan()
    policies: tuple[PolicyAudit, ...] = (FormAudit(kind="probabilities"),)
    surfaces: tuple[Surface, ...] = ("teacher", "student")
    attacks: tuple[Annotated[str, OneOf(ATTACKS.choices)], ...] = DEFAULT_ATTACKS
    fprs: tuple[OpenShare, ...] = (0.01, 0.001)
    canaries: CanariesPlan = CanariesPlan()
    threads: Annotated[int, Field(ge=0)] = Field(0, description="torch threads; 0 leaves torch's choice")

    @model_validator(mode="after")
    def _parts_fit_together(self) -> AuditConfig:
        for field in ("policies", "surfaces", "attacks", "fprs"):
            if not getattr(self, field):
                raise ValueError(explain(field, (), "must name at least one", "leave it out for the default"))
        names = [policy.name for policy in self.policies]
        if len(set(names)) < len(names):
            raise ValueError(explain("policies", names, "must differ", "name each once"))
        self._check_that_all_is_attacked()
        if self.canaries.count and self.canaries.audited > self.shadows.count - 2:
            constraint = f"must leave at least 2 of {self.shadows.count} shadows as references"
            raise ValueError(explain("canaries.audited", self.canaries.audited, constraint, "lower it"))
        return self

    def _check_that_all_is_attacked(self) -> None:
        named = [ATTACKS.get(name) for name in self.attacks]
        channels = {policy.kind == "label" for policy in self.policies if "teacher" in self.surfaces}
        channels |= {False} if "student" in self.surfaces else set()  # a student is handed over whole
        if any(not any(attack.works_on(labels_only=labels) for attack in named) for labels in channels):
            needs = "; ".join(f"{attack.name} needs {attack.needs}" for attack in named)
            constraint = f"leave a policy or the students unattacked: {needs}"
            raise ValueError(explain("attacks", self.attacks, constraint, f"add {BOUND_ATTACK}"))
