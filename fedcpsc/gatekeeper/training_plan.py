"""What a configuration may ask of a teacher's training: `teachers.training`, by kind."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from fedcpsc.config import TeachersConfig
from fedcpsc.errors import ConfigError, explain
from fedcpsc.privacy.accounting import History
from fedcpsc.typed_yaml import Strict, validate

__all__ = [
    "DpSgdTraining",
    "PlainTraining",
    "ShardsTraining",
    "TrainingPlan",
    "planned_history",
    "public_units",
    "training_plan",
    "used_settings",
]


class PlainTraining(Strict):
    """Training without a privacy guarantee: the weights may remember any image.

    Attributes:
        optimiser: "adam" suits the small networks; "sgd" (Nesterov momentum 0.9) the ResNets, with learning rate 0.1.
        canaries: records set aside for an audit: mislabelled, each included by a fair coin (`gatekeeper.canaries`).
    """

    kind: Literal["plain"] = "plain"
    optimiser: Literal["adam", "sgd"] = "adam"
    canaries: Annotated[int, Field(ge=0)] = 0


class DpSgdTraining(Strict):
    """DP-SGD by Opacus: Poisson-sampled batches, per-image gradients clipped and noised.

    Attributes:
        epsilon: of the training, per record under add/remove, > 0.
        delta: of the same guarantee; below 1 / (private images).
        records: public nominal number of records, >= 1.
        max_grad_norm: each image's gradient is clipped to this L2 norm.
        optimiser: "sgd" has momentum 0.9.
        canaries: as in plain training; the guarantee covers them like all other records.
    """

    kind: Literal["dp_sgd"] = "dp_sgd"
    epsilon: Annotated[float, Field(gt=0, le=1000)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    records: Annotated[int, Field(ge=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    canaries: Annotated[int, Field(ge=0)] = 0


class ShardsTraining(Strict):
    """K plainly trained teachers, each on the records that a keyed hash deals to it. Their noisy votes are private.

    Attributes:
        shards: K, the number of teachers.
        optimiser: as in plain training.
    """

    kind: Literal["shards"] = "shards"
    shards: Annotated[int, Field(ge=2, le=10_000)]
    optimiser: Literal["adam", "sgd"] = "adam"


TrainingPlan: TypeAlias = PlainTraining | DpSgdTraining | ShardsTraining

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


def used_settings(plan: TrainingPlan, teachers: TeachersConfig) -> dict[str, Any]:
    """What the manifest says of how the teacher was trained, but for its seed.

    Args:
        plan: `teachers.training`.
        teachers: epochs, batch size, learning rate and so on.
    """
    fields = ("epochs", "batch_size", "learning_rate", "weight_decay", "shift", "flip")
    kind = plan.model_dump()
    if not kind.get("canaries"):
        kind.pop("canaries", None)  # a teacher without any is the one made before there were canaries
    return kind | {name: getattr(teachers, name) for name in fields}


def public_units(plan: DpSgdTraining, units: int, *, public_size: bool) -> int:
    """The number of units that the plan may build on: the configured one, or the true one where that is public."""
    del public_size
    return plan.records or units


@lru_cache
def planned_history(plan: DpSgdTraining, epochs: int, batch_size: int, units: int) -> History:
    """(noise multiplier, rate, steps) of a DP-SGD training, from its configuration alone.

    Args:
        plan: the guarantee.
        epochs: passes over the units.
        batch_size: mean of the Poisson batches.
        units: public number of records or persons.
    """
    from opacus.accountants.utils import get_noise_multiplier  # noqa: PLC0415 - slow to import, used by this kind alone

    rate = 1 / math.ceil(units / min(batch_size, units))
    steps = int(epochs / rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        noise = get_noise_multiplier(
            target_epsilon=plan.epsilon, target_delta=plan.delta, sample_rate=rate, steps=steps, accountant="prv"
        )
    return [(float(noise), rate, steps)]
