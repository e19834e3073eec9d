# SPDX-License-Identifier: Apache-2.0
"""The section of a run's configuration that says what the student is, and how it is fitted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedcpsc.errors import explain
from fedcpsc.pretrained_normalisation import NamedNormalisation
from fedcpsc.typed_yaml import Positive, Rate, Share, Strict, Weight

__all__ = ["Precision", "StudentConfig"]

Precision = Literal["float32", "bfloat16"]


class StudentConfig(Strict):
    """The product, and how it is fitted to the answer bank. [Students](../students.md) explains the choices."""

    architecture: str = Field(
        "convnet",
        description="a name of fedcpsc.models.registry, torchvision/NAME or timm/NAME; an unknown one is refused with the nearest",
    )
    width: Positive = Field(
        32,
        description="channels of the first stage of convnet, convnet_gn and resnet18_narrow; the others have their published widths",
    )
    weights: str | None = Field(
        None,
        description="path of a file of public pretrained weights that the student starts from: safetensors, or a state dict of torch.save; null starts from a random initialisation",
    )
    normalisation: NamedNormalisation = None
    frozen: bool = Field(
        False,
        description="whether all but the head stays as the weights have it; only the last linear layer is then fitted",
    )
    committee: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="networks that guide the generator; the first is the student"
    )
    fellows: str | None = Field(
        None,
        description="architecture of the committee's other networks; null takes the student's, beside a module of the caller's own convnet; a small one saves time beside a large student",
    )
    pretraining_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="steps of contrast between two views of the priors' images before the first round, from which all but the student's head learns; 0 leaves them out",
    )
    steps_per_round: Positive | None = Field(
        None,
        description="steps on the bank after each round, for every network of the committee; null: 40, or 0.16 per image of the round where that is more",
    )
    final_steps: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="steps of the student alone on the whole bank, after the last round; null: 3000, or 0.6 per answer where that is more",
    )
    batch_size: Positive = Field(64, description="banked images a step")
    fresh_share: Share = Field(0.3, description="share of each student batch drawn from the newest answers")
    optimiser: Literal["adam", "adamw", "sgd"] = Field(
        "adam",
        description="rule by which a step changes the weights: adam; adamw, where weights decay apart from the gradient; sgd, which needs a larger learning_rate",
    )
    learning_rate: Rate = Field(2e-3, description="learning rate of the rounds, and the highest of the final fit")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum of sgd; the others have none")
    nesterov: bool = Field(False, description="whether sgd takes its momentum in Nesterov's form")
    weight_decay: Weight = Field(0.0, description="weight decay of the optimiser")
    schedule: Literal["cosine", "constant", "step"] = Field(
        "cosine",
        description="learning rate in the final fit: cosine falls to zero; constant stays; step falls to a tenth after half of the steps, and to a hundredth after three quarters",
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps at the beginning of the final fit over which the learning rate rises from zero"
    )
    shift: Annotated[int, Field(ge=0)] = Field(1, description="random shift of student inputs in pixels")
    flip: bool = Field(
        False, description="random horizontal flips of student inputs, where a mirror image is of the same class"
    )
    mixup: Weight = Field(
        0.0,
        description="alpha of mixup: batches are blended with themselves, images and answers alike, by a share drawn from Beta(alpha, alpha); 0 does not",
    )
    cutmix: Weight = Field(
        0.0,
        description="alpha of cutmix: a rectangle of each image comes from another, and so much of its answer; the share is drawn as for mixup; with both, each batch takes one of them by lot",
    )
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="decay of the exponential average of the student's weights in the final fit; 0 takes the last weights",
    )
    noise: Weight = Field(0.0, description="std of Gaussian noise added to student inputs in [-1, 1]")
    contrastive_weight: Weight = Field(
        0.0,
        description="supervised contrast over two student views, classes from the answers (SupCon); the views are never mixed",
    )
    contrastive_temperature: Rate = Field(0.07, description="temperature of the contrastive loss")
    precision: Precision | None = Field(
        None,
        description="floating-point format of passes in the fit, float32 or bfloat16, weights and losses stay float32; null: bfloat16 where the machine computes in it by itself, which is faster, and the run keeps what it began with",
    )

    @model_validator(mode="after")
    def _frozen_has_weights(self) -> StudentConfig:
        if self.frozen and self.weights is None:
            constraint = "keeps the weights that student.weights names, and there are none"
            raise ValueError(explain("frozen", True, constraint, "set student.weights, or leave it out"))
        return self

    @model_validator(mode="after")
    def _nesterov_has_a_momentum(self) -> StudentConfig:
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            constraint = f"is for sgd with a momentum > 0, not {self.optimiser} with {self.momentum}"
            raise ValueError(explain("nesterov", True, constraint, "set student.optimiser: sgd, or leave it out"))
        return self
