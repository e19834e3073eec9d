"""A silo's policy: what its teacher may be asked, how often, and how answers are privatised.

Read from the silo's own `policy.yaml`; nothing in a run or on the wire can change it. Fields that bound what a server
can learn stand first; `service` holds those that only change speed. Torch-free and flwr-free.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from fedcpsc.config import Strict, read_yaml, save_config, validate
from fedcpsc.errors import ConfigError, PolicyError, explain
from fedcpsc.protocol.messages import AnswerForm

__all__ = ["POLICY_FILE", "MechanismPolicy", "NoMechanism", "Policy", "ServicePolicy", "load_policy", "save_policy"]

POLICY_FILE = "policy.yaml"


class NoMechanism(Strict):
    """Answers as the teacher gives them, in the form asked for. No differential privacy."""

    kind: Literal["none"] = "none"


MechanismPolicy: TypeAlias = NoMechanism


class ServicePolicy(Strict):
    """Changes speed and robustness, never what an answer says."""

    batch_size: Annotated[int, Field(ge=1, le=100_000)] = Field(500, description="images per forward pass")


class Policy(Strict):
    """What a server can learn at most.

    Attributes:
        forms: answer forms offered.
        answers: images answered over all time and all runs; the ledger's own budget, where lower, goes first.
        images_per_query: most images in one query.
        bits: 8 sends probabilities as uint8 (times 255, rounded), 32 as float32.
        top_k: classes shown by the form `top_k`.
        share_class_counts: tell the server how many private images each class has.
        mechanism: how answers are privatised.
        high_water_mark: file, best on another volume, that detects a ledger restored from an old copy.
        service: performance only.
    """

    forms: tuple[AnswerForm, ...] = (AnswerForm.PROBABILITIES,)
    answers: Annotated[int, Field(ge=1, le=2**53)] = 20_000
    images_per_query: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    bits: Literal[8, 32] = 8
    top_k: Annotated[int, Field(ge=1, le=65_535)] = 3
    share_class_counts: bool = False
    mechanism: MechanismPolicy = NoMechanism()
    high_water_mark: str | None = None
    service: ServicePolicy = ServicePolicy()

    @field_validator("forms")
    @classmethod
    def _offers_something_once(cls, forms: tuple[AnswerForm, ...]) -> tuple[AnswerForm, ...]:
        if not forms or len(set(forms)) != len(forms):
            shown = [form.value for form in forms]
            raise ValueError(explain("forms", shown, "must name at least one form, each once", "use [probabilities]"))
        return forms


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
    partial = Path(path).with_suffix(".partial")
    save_config(policy, partial)
    os.replace(partial, path)
