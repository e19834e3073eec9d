# SPDX-License-Identifier: Apache-2.0
"""What a configuration may ask of a teacher's training (`teachers.training`, by kind), and what follows from it alone.

A training with a guarantee must not distinguish neighbouring data sets before it begins: noise, sampling rate, number
of steps and divisor follow from the configuration (`planned_history`), never from the records that a silo holds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from fedcpsc.errors import ConfigError, PolicyError, explain
from fedcpsc.privacy.accounting import History, least_noise_multiplier
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.typed_yaml import Strict, validate

__all__ = [
    "DpSgdTraining",
    "PlainTraining",
    "ShardsTraining",
    "TrainingFacts",
    "TrainingPlan",
    "planned_history",
    "public_units",
    "training_plan",
    "used_settings",
]


class PlainTraining(Strict):
    """Training without a privacy guarantee: the weights may remember any image.

    Attributes:
        optimiser: name of the optimiser: "adam" suits the small networks; "sgd" (Nesterov momentum 0.9) the ResNets,
            with learning rate 0.1.
        canaries: expected number of records (persons, where `data.persons` names them) set aside for an audit: each
            becomes one by a coin of its own, so that the true number varies by about the root of this; 0 for none, some
            hundreds for an audit that can find anything (`gatekeeper.canaries`).
    """

    kind: Literal["plain"] = "plain"
    optimiser: Literal["adam", "sgd"] = "adam"
    canaries: Annotated[int, Field(ge=0)] = 0


class DpSgdTraining(Strict):
    """DP-SGD: Poisson-sampled batches, each unit's gradient clipped, the sum noised.

    The unit is a record, or a person where `data.persons` names persons; `teachers.batch_size` counts units.

    Attributes:
        epsilon: epsilon of the training, per unit under add/remove, > 0. It is what the silo claims.
        delta: delta of the same guarantee; must be below 1 / records.
        records: public number of units that the plan is made for, a round figure near the true one: sampling rate,
            steps and noise follow from it. Where the true number differs the promise holds all the same; with fewer
            units than planned batches are smaller than `batch_size`, with more they are larger. null is refused unless
            the silo's policy says `public_size: true`; the true number is then used, and shown to everybody.
        max_grad_norm: L2 norm that each unit's mean gradient is clipped to, > 0.
        optimiser: name of the optimiser; "sgd" has momentum 0.9. Weight decay is not used.
        canaries: expected number of canaries, as in plain training, at most half of `records`; the guarantee covers
            them like all other units.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    epsilon: Annotated[float, Field(gt=0, le=1000)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    records: Annotated[int, Field(ge=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    canaries: Annotated[int, Field(ge=0)] = 0


class ShardsTraining(Strict):
    """K plainly trained teachers, each on the units that a keyed hash deals to it. Their noisy votes are private.

    A unit is a record, or a person with all its records where `data.persons` names persons.

    Attributes:
        shards: number K of teachers, >= 2.
        optimiser: name of the optimiser, as in plain training.
    """

    kind: Literal["shards"] = "shards"
    shards: Annotated[int, Field(ge=2, le=10_000)]
    optimiser: Literal["adam", "sgd"] = "adam"


TrainingPlan: TypeAlias = PlainTraining | DpSgdTraining | ShardsTraining
TrainingFacts: TypeAlias = dict[str, object]
"""Settings of a training by name, as a manifest records them: plain values."""

_KINDS: dict[str, type[PlainTraining] | type[DpSgdTraining] | type[ShardsTraining]] = {
    "plain": PlainTraining,
    "dp_sgd": DpSgdTraining,
    "shards": ShardsTraining,
}


def training_plan(config: TeachersConfig) -> TrainingPlan:
    """`teachers.training`, checked.

    Raises:
        ConfigError: for an unknown kind or field.
    """
    kind = config.training.get("kind", "plain")
    if kind not in _KINDS:
        raise ConfigError(explain("teachers.training.kind", kind, "is unknown", f"use one of {list(_KINDS)}"))
    return validate(_KINDS[kind], dict(config.training), "teachers.training")


def used_settings(plan: TrainingPlan, teachers: TeachersConfig, weights_sha256: str | None = None) -> TrainingFacts:
    """What a manifest records of a training: the settings that it used, and no others.

    Args:
        plan: kind of training and its fields.
        teachers: settings shared by all kinds.
        weights_sha256: SHA-256 of the public weights that it started from; None where it started at random.
    """
    fields = ["epochs", "batch_size", "learning_rate", "weight_decay", "shift", "flip"]
    if isinstance(plan, DpSgdTraining):
        fields.remove("weight_decay")
    kind = plan.model_dump()
    if not kind.get("canaries"):
        kind.pop("canaries", None)  # a teacher without any is the one made before there were canaries
    outliers = {} if teachers.outliers is None else {"outliers": teachers.outliers.model_dump(mode="json")}
    precision = {} if teachers.precision is None else {"precision": teachers.precision}
    start: TrainingFacts = {}
    if weights_sha256 is not None:
        start = {"public_weights": weights_sha256, "frozen": teachers.frozen}
        if teachers.normalisation is not None:
            start["normalisation"] = teachers.normalisation.model_dump(mode="json")
    return kind | {name: getattr(teachers, name) for name in fields} | outliers | precision | start


def public_units(plan: DpSgdTraining, units: int, *, public_size: bool) -> int:
    """The number of units that the plan may build on: the configured one, or the true one where that is public.

    Args:
        plan: DP-SGD's settings.
        units: true number of units of the silo, private unless `public_size`.
        public_size: whether the silo's policy makes the true number public.

    Raises:
        ConfigError: where neither is there.
    """
    if plan.records is not None:
        return plan.records
    if public_size:
        return units
    raise ConfigError(
        explain(
            "teachers.training.records",
            None,
            "dp_sgd plans noise and steps by a public number of records (of persons, where data.persons names them)",
            "give a round figure near the true number, for example records: 12000, "
            "or show the true one to everybody by public_size: true in the silo's policy",
        )
    )


def planned_history(plan: DpSgdTraining, epochs: int, batch_size: int, units: int) -> History:
    """Noise multiplier, sampling rate and steps: the accountant's state after a training that has not begun yet.

    rate = batch_size / units; steps = ceil(epochs units / batch_size); the least noise, up to 0.01 in epsilon, whose
    epsilon by Opacus' PRV accountant is at most the plan's. Functions of public numbers alone, cached.

    Args:
        plan: DP-SGD's settings.
        epochs: passes over the units, > 0.
        batch_size: expected number of units in a batch, > 0.
        units: public number of units (`public_units`).

    Raises:
        ConfigError: where batches are larger than the whole, delta is too large, or no noise is large enough.
    """
    if batch_size > units:
        remedy = "lower it, or correct teachers.training.records"
        raise ConfigError(explain("teachers.batch_size", batch_size, f"must be at most records={units}", remedy))
    if plan.delta * units >= 1:
        constraint = f"must be below 1 / {units} records: otherwise publishing one record whole would comply"
        raise ConfigError(explain("teachers.training.delta", plan.delta, constraint, "lower it"))
    rate, steps = batch_size / units, math.ceil(epochs * units / batch_size)
    try:
        noise = least_noise_multiplier(plan.epsilon, plan.delta, rate, steps)
    except PolicyError as error:
        constraint = f"no noise is large enough at delta {plan.delta:g}"
        raise ConfigError(explain("teachers.training.epsilon", plan.epsilon, constraint, "raise it")) from error
    return ((noise, rate, steps),)
