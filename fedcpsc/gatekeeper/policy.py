# SPDX-License-Identifier: Apache-2.0
"""A silo's policy: what its teacher may be asked, how often, and how answers are privatised.

Read from the silo's own `policy.yaml`; nothing in a run or on the wire can change it. Fields that bound what a server
can learn stand first; `service` holds those that only change speed. Torch-free and flwr-free.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, Union

from pydantic import Field, field_validator, model_validator

from fedcpsc.errors import ConfigError, PolicyError, explain
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy
from fedcpsc.gatekeeper.mechanisms.mechanism import MECHANISM_KINDS
from fedcpsc.gatekeeper.mechanisms.none import NoMechanism
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy, MechanismPolicy, Scale
from fedcpsc.ledger.mark import MARK_FILE
from fedcpsc.protocol.answer_form import AnswerForm
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.typed_yaml import Strict, read_yaml, save_config, validate

__all__ = ["POLICY_FILE", "Policy", "ServicePolicy", "load_policy", "mark_path", "save_policy"]

POLICY_FILE = "policy.yaml"

if TYPE_CHECKING:
    AnyMechanism: TypeAlias = MechanismPolicy
else:  # one section for each registered mechanism, chosen by `kind`; an unknown kind is an error
    AnyMechanism = Annotated[
        Union[tuple(kind.section for kind in MECHANISM_KINDS.documented())],  # noqa: UP007 - made, not written
        Field(discriminator="kind"),
    ]


class ServicePolicy(Strict):
    """Settings that change speed and robustness, and an answer by no more than the rounding of floats.

    Attributes:
        batch_size: number of images per forward pass; null is 64, of images over 64x64 pixels fewer: 10 of 224x224; on
            a GPU 512.
        device: device that the teacher's network answers on: cpu, or cuda for a GPU of the silo's own, which the kinds
            torch, torchvision, timm and huggingface can use. Answers differ in the last digits from a CPU's.
        query_megabytes: most megabytes (10^6 bytes) of a query's images, beside `images_per_query`; one image may
            always be asked about.
        queue: number of requests that may wait at a time; more are refused as busy.
        connections: number of open connections; beyond it, the connection that has been idle longest is closed.
        read_timeout_s: seconds in which a request must arrive completely; also the longest pause in reading a reply.
        grace_s: seconds for queries under way when the process is asked to stop.
    """

    batch_size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    query_megabytes: Annotated[float, Field(gt=0, le=1024)] = 16.0
    queue: Annotated[int, Field(ge=1, le=10_000)] = 16
    connections: Annotated[int, Field(ge=2, le=10_000)] = 64
    read_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    grace_s: Annotated[int, Field(ge=0, le=3600)] = 30


class Policy(Strict):
    """Limits on what a server can learn.

    Attributes:
        forms: answer forms offered.
        answers: number of images answered over all time and all runs; where the ledger's own budget is lower, it holds.
        images_per_query: largest number of images in one query.
        bits: number of bits of a probability: 8 sends uint8 (times 255, rounded), 32 float32.
        top_k: number of classes shown by the form `top_k`.
        share_class_counts: whether the server is shown how many private images each class has.
        class_count_sigma: standard deviation of the noise on each count, charged once; null shows exact counts, which
            no dp mechanism allows. Refused where persons are protected: the noise is calculated for one record.
        share_answers: whether the server may hand the answers on to others, with the images and what is computed from
            both: a promise that is asked of the server, which nothing here can enforce. The student is not meant.
        mechanism: mechanism that privatises answers, chosen by its `kind`.
        public_size: whether the number of private records is public: DP-SGD may then take rate, steps and noise from
            it, and whoever sees the answers may find it; else the configuration names a number
            (`teachers.training.records`).
        recipe_queries: whether the silo makes a query's images itself from a recipe, where the server sends one: fewer
            bytes, for the silo's processor time, which is spent even where the images turn out to be others.
        evaluation: whether students are judged on held-out images of the owner's, and how often; null: they are not.
        high_water_mark: file that detects an old copy of the ledger put back, best on another volume; a relative name
            is in the silo's folder, and null is `ledger.mark` beside the ledger.
        service: settings of the process, which change speed alone.
    """

    forms: tuple[AnswerForm, ...] = (AnswerForm.PROBABILITIES,)
    answers: Annotated[int, Field(ge=1, le=2**53)] = 20_000
    images_per_query: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    bits: Literal[8, 32] = 8
    top_k: Annotated[int, Field(ge=1, le=65_535)] = 3
    share_class_counts: bool = False
    class_count_sigma: Scale | None = None
    share_answers: bool = False
    mechanism: AnyMechanism = NoMechanism()
    public_size: bool = False
    recipe_queries: bool = False
    evaluation: EvaluationPolicy | None = None
    high_water_mark: str | None = None
    service: ServicePolicy = ServicePolicy()

    def images_of_a_query(self, image_shape: tuple[int, int, int]) -> int:
        """Most images (C, H, W) of a query, >= 1: at most `images_per_query`, within `service.query_megabytes`."""
        return min(self.images_per_query, images_of_bytes(self.service.query_megabytes, image_shape))

    @field_validator("forms")
    @classmethod
    def _offers_something_once(cls, forms: tuple[AnswerForm, ...]) -> tuple[AnswerForm, ...]:
        if not forms or len(set(forms)) != len(forms):
            shown = [form.value for form in forms]
            raise ValueError(explain("forms", shown, "must name at least one form, each once", "use [probabilities]"))
        return forms

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Policy:
        kind = MECHANISM_KINDS.get(self.mechanism.kind)
        if kind.may_abstain and self.forms != (AnswerForm.PROBABILITIES,):
            shown = [form.value for form in self.forms]
            raise ValueError(explain("forms", shown, f"{kind.name} may abstain", "use [probabilities]: zeros abstain"))
        if self.share_class_counts and self.class_count_sigma is None and isinstance(self.mechanism, DpPolicy):
            raise ValueError(
                explain("class_count_sigma", None, "exact counts break the guarantee", "set it, for example 10")
            )
        return self

    @model_validator(mode="after")
    def _evaluations_have_the_noise_that_is_promised(self) -> Policy:
        if self.evaluation is None:
            return self
        sigma, dp = self.evaluation.sigma, isinstance(self.mechanism, DpPolicy)
        if dp and sigma is None:
            remedy = "set it, for example 5: the count then is off by about 5 images"
            raise ValueError(explain("evaluation.sigma", None, "an exact number breaks the guarantee", remedy))
        if not dp and sigma is not None:
            constraint = f"noise promises nothing beside mechanism.kind={self.mechanism.kind}, which promises nothing"
            raise ValueError(explain("evaluation.sigma", sigma, constraint, "leave it out, or choose a dp mechanism"))
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
        policy: policy of the silo.
    """
    return Path(folder) / (policy.high_water_mark or MARK_FILE)
