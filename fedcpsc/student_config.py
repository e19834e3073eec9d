# SPDX-License-Identifier: Apache-2.0
"""The section of a run's configuration that says what the student is, and how it is fitted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedcpsc.typed_yaml import Positive, Rate, Share, Strict, Weight

__all__ = ["Precision", "StudentConfig"]

Precision = Literal["float32", "bfloat16"]


class StudentConfig(Strict):
    """The product, and how it is fitted to the answer bank."""

    architecture: str = Field(
        "convnet",
        description="a name of fedcpsc.models.registry, torchvision/NAME or timm/NAME; an unknown one is refused with the nearest",
    )
    width: Positive = Field(
        32,
        description="channels of the first stage of convnet, convnet_gn and resnet18_narrow; the others have their published widths",
    )
    committee: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="networks that guide the generator; the first is the student"
    )
    fellows: str | None = Field(
        None,
        description="architecture of the committee's other networks; null takes the student's, beside a module of the caller's own convnet; a small one saves time beside a large student",
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
    learning_rate: Rate = Field(2e-3, description="learning rate of Adam; falls to zero in the final fit")
    weight_decay: Weight = Field(0.0, description="weight decay of Adam")
    shift: Annotated[int, Field(ge=0)] = Field(1, description="random shift of student inputs in pixels")
    flip: bool = Field(
        False, description="random horizontal flips of student inputs, where a mirror image is of the same class"
    )
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="decay of the exponential average of the student's weights in the final fit; 0 takes the last weights",
    )
    noise: Weight = Field(0.0, description="std of Gaussian noise added to student inputs in [-1, 1]")
    contrastive_weight: Weight = Field(
        0.0, description="supervised contrast over two student views, classes from the answers (SupCon)"
    )
    contrastive_temperature: Rate = Field(0.07, description="temperature of the contrastive loss")
    precision: Precision = Field(
        "float32",
        description="floating-point format of passes in the fit; bfloat16 is faster where the machine has it, weights and losses stay float32",
    )
