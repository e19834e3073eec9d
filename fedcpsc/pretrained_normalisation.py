# SPDX-License-Identifier: Apache-2.0
"""What a network does to pixels first, as the pretrained weights that it begins with expect."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from fedcpsc.errors import explain
from fedcpsc.typed_yaml import Rate, Strict

__all__ = ["NamedNormalisation", "PretrainedNormalisation"]

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class PretrainedNormalisation(Strict):
    """What the network does to pixels first: `(pixel - mean) / std`, pixels in [0, 1], as its weights expect.

    `normalisation: imagenet` stands for the constants of ImageNet, which most pretrained networks expect. Null, the
    default, gives the network pixels in [-1, 1]. It is a part of the network, also of an exported student.
    """

    mean: tuple[float, ...] = Field(
        description="means that are subtracted, one for all channels or one for each", min_length=1
    )
    std: tuple[Rate, ...] = Field(description="standard deviations that are divided by, as many", min_length=1)

    @model_validator(mode="after")
    def _as_many(self) -> PretrainedNormalisation:
        if len(self.mean) != len(self.std):
            raise ValueError(explain("std", list(self.std), f"must be {len(self.mean)} numbers, as mean", "fix either"))
        return self


def _by_name(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given != "imagenet":
        constraint = "must be imagenet, or a section with mean and std"
        raise ValueError(explain("normalisation", given, constraint, "write the constants"))
    return _IMAGENET


NamedNormalisation = Annotated[PretrainedNormalisation | None, BeforeValidator(_by_name)]
"""Constants, the name `imagenet`, or null."""
