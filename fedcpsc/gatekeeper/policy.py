"""A silo's policy: what its teacher may be asked, how often, and how answers are privatised.

Read from the silo's own `policy.yaml`; nothing in a run or on the wire can change it. Fields that bound what a server
can learn stand first; `service` holds those that only change speed. Torch-free and flwr-free.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from fedcpsc.errors import ConfigError, PolicyError, explain
from fedcpsc.ledger.mark import MARK_FILE
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.typed_yaml import Strict, read_yaml, save_config, validate

__all__ = [
    "POLICY_FILE",
    "ConfidentGnMaxPolicy",
    "DpPolicy",
    "DpSgdPolicy",
    "GnMaxPolicy",
    "HardeningPolicy",
    "MechanismPolicy",
    "NoMechanism",
    "NoiseOnlyPolicy",
    "NoisyPolicy",
    "Policy",
    "ServicePolicy",
    "ShardVotesPolicy",
    "load_policy",
    "mark_path",
    "save_policy",
]

POLICY_FILE = "policy.yaml"

Scale = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class NoMechanism(Strict):
    """Answers as the teacher gives them, in the form asked for. No differential privacy."""

    kind: Literal["none"] = "none"


class HardeningPolicy(Strict):
    """Flatter and rounded probabilities. No differential privacy.

    Attributes:
        temperature: of the softmax; above 1 is flatter.
        decimals: that probabilities are rounded to.
    """

    kind: Literal["hardening"] = "hardening"
    temperature: Scale = 1.0
    decimals: Annotated[int, Field(ge=0, le=8)] = 2


class DpPolicy(Strict):
    """What every differentially private mechanism promises, per record, under add/remove.

    Attributes:
        epsilon: most that may ever be lost on the silo's population, by all that is released of it, > 0.
        delta: of the same guarantee; below 1 / (private records).
        accept_large_delta: the owner's consent to a delta of 1 / (private records) or more.
    """

    epsilon: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    accept_large_delta: bool = False


class DpSgdPolicy(DpPolicy):
    """The teacher was trained by DP-SGD, as its manifest proves; its answers are free."""

    kind: Literal["dp_sgd"] = "dp_sgd"


class NoisyPolicy(DpPolicy):
    """Noise on every answer, until epsilon is spent.

    Attributes:
        sigma: standard deviation of the noise: of each mean probability, or for the gnmax kinds of each vote count.
    """

    sigma: Scale

    @property
    def exact_sigma(self) -> Fraction:
        """`sigma` as it is written in decimals: 0.1 is 1/10."""
        return Fraction(repr(self.sigma))


class ShardVotesPolicy(NoisyPolicy):
    """The noisy mean of K teachers on disjoint shards.

    Attributes:
        levels: each teacher's probabilities are cut to integers with sum at most this before noise.
    """

    kind: Literal["shard_votes"] = "shard_votes"
    levels: Annotated[int, Field(ge=1, le=1000)] = 32


class NoiseOnlyPolicy(NoisyPolicy):
    """Noise on a single teacher trained without privacy; epsilon is large unless sigma is.

    Attributes:
        levels: the probabilities are cut to integers with sum at most this before noise.
    """

    kind: Literal["noise_only"] = "noise_only"
    levels: Annotated[int, Field(ge=1, le=1000)] = 32


class GnMaxPolicy(NoisyPolicy):
    """The class with the most votes of K teachers after noise."""

    kind: Literal["gnmax"] = "gnmax"


class ConfidentGnMaxPolicy(NoisyPolicy):
    """As gnmax, and only where the teachers agree.

    Attributes:
        threshold: votes that must agree.
        threshold_sigma: standard deviation of the noise on that comparison.
    """

    kind: Literal["confident_gnmax"] = "confident_gnmax"
    threshold: Annotated[int, Field(ge=1)]
    threshold_sigma: Scale


MechanismPolicy: TypeAlias = Annotated[
    NoMechanism
    | HardeningPolicy
    | DpSgdPolicy
    | ShardVotesPolicy
    | NoiseOnlyPolicy
    | GnMaxPolicy
    | ConfidentGnMaxPolicy,
    Field(discriminator="kind"),
]


class ServicePolicy(Strict):
    """Changes speed and robustness, never what an answer says.

    Attributes:
        batch_size: images per forward pass.
        queue: requests that may wait at a time; more are refused as busy.
        connections: open at a time; of more, the one that has waited longest without a request is closed.
        read_timeout_s: seconds in which a request must have arrived whole, and in which its reply must be being read.
        grace_s: seconds for queries under way when the process is told to stop.
    """

    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 500
    queue: Annotated[int, Field(ge=1, le=10_000)] = 16
    connections: Annotated[int, Field(ge=2, le=10_000)] = 64
    read_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    grace_s: Annotated[int, Field(ge=0, le=3600)] = 30


class Policy(Strict):
    """What a server can learn at most.

    Attributes:
        forms: answer forms offered.
        answers: images answered over all time and all runs; the ledger's own budget, where lower, goes first.
        images_per_query: most images in one query.
        bits: 8 sends probabilities as uint8 (times 255, rounded), 32 as float32.
        top_k: classes shown by the form `top_k`.
        share_class_counts: tell the server how many private images each class has.
        class_count_sigma: noise on each count, charged once; null tells exact counts, which no dp mechanism allows.
            Refused where persons are protected: the noise is reckoned for one record.
        mechanism: how answers are privatised.
        public_size: the number of private records is public: DP-SGD may then take rate, steps and noise from it, and
            whoever sees the answers may find it; else the configuration names a number (`teachers.training.records`).
        recipe_queries: make a query's images from what they are made of, where the server asks so: fewer bytes, for the
            silo's processor time, of which also those take some whose images turn out to be others.
        high_water_mark: file that detects an old copy of the ledger put back, best on another volume; a relative name
            is in the silo's folder, and null is `ledger.mark` beside the ledger.
        service: performance only.
    """

    forms: tuple[AnswerForm, ...] = (AnswerForm.PROBABILITIES,)
    answers: Annotated[int, Field(ge=1, le=2**53)] = 20_000
    images_per_query: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    bits: Literal[8, 32] = 8
    top_k: Annotated[int, Field(ge=1, le=65_535)] = 3
    share_class_counts: bool = False
    class_count_sigma: Scale | None = None
    mechanism: MechanismPolicy = NoMechanism()
    public_size: bool = False
    recipe_queries: bool = False
    high_water_mark: str | None = None
    service: ServicePolicy = ServicePolicy()

    @field_validator("forms")
    @classmethod
    def _offers_something_once(cls, forms: tuple[AnswerForm, ...]) -> tuple[AnswerForm, ...]:
        if not forms or len(set(forms)) != len(forms):
            shown = [form.value for form in forms]
            raise ValueError(explain("forms", shown, "must name at least one form, each once", "use [probabilities]"))
        return forms

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Policy:
        if isinstance(self.mechanism, ConfidentGnMaxPolicy) and self.forms != (AnswerForm.PROBABILITIES,):
            shown = [form.value for form in self.forms]
            raise ValueError(
                explain("forms", shown, "confident_gnmax may abstain", "use [probabilities]: zeros abstain")
            )
        if self.share_class_counts and self.class_count_sigma is None and isinstance(self.mechanism, DpPolicy):
            raise ValueError(
                explain("class_count_sigma", None, "exact counts break the guarantee", "set it, for example 10")
            )
        return self


def load_policy(path: str | Path) -> Policy:
    """The policy in a YAML file; an empty file is the default policy.

    Raises:
        PolicyError: where the file is missing, not YAML, or has an unknown key or a value out of range.
    """
    try:
        return validate(Policy, read_yaml(path), str(path))
    except ConfigError as error:  # the same checks and words, but it is the silo's owner who acts
        raise PolicyError(str(error)) from error


def save_policy(policy: Policy, path: str | Path) -> None:
    """Writes every value, whole or not at all; `load_policy(path) == policy`."""
    save_config(policy, path)


def mark_path(folder: str | Path, policy: Policy) -> Path:
    """The file of a silo's high-water mark: the one its policy names, else `ledger.mark` beside the ledger.

    Args:
        folder: the silo's folder; a relative name in the policy is meant in there.
        policy: the silo's policy.
    """
    return Path(folder) / (policy.high_water_mark or MARK_FILE)
