# SPDX-License-Identifier: Apache-2.0
"""What an owner says of a finished model, as text from a command line, and what is still to be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from fedcpsc.errors import ConfigError, explain
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognised import Hints, Recognised

__all__ = [
    "NORMALISATIONS",
    "Hints",
    "Wishes",
    "ask_for_the_rest",
    "named_normalisation",
    "read_shape",
]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATIONS: dict[str, str] = {
    "imagenet": "mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225, of torchvision's and most timm models; colour",
    "half": "mean 0.5 and std 0.5: pixels in [-1, 1]",
    "none": "mean 0 and std 1: pixels in [0, 1]",
    "bytes": "mean 0 and std 1/255: pixels as they are, 0 to 255",
}
"""What each named normalisation is. Others are written mean/std, a number or one for each channel: 0.1307/0.3081."""

_SHAPE = re.compile(r"(\d{1,5})x(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What an owner says of a finished model. What a model's file says itself may be left out.

    Attributes:
        hints: what the file is, where it does not say so itself; without normalisation and number of outputs, which
            follow from the fields below.
        class_names: names of the classes, in the order of the model's outputs.
        none_class: whether the model has one output more, the last, for "none of these classes".
        normalisation: one of `NORMALISATIONS`, or mean/std as text.
        population: name of the population whose records the model was trained on.
        silo: name of the silo, which the server is shown; None takes the folder's.
        kind: teacher format that it must be, one of `choices.TEACHER_FORMATS`; None takes what is found.
        class_counts: number of private images in each class; None where they are not said, and then never shared.
        resize: way in which pictures were brought to the model's size.
        policy: policy of the silo.
        notes: sentences about how the owner's words were understood.
    """

    hints: Hints = field(default_factory=Hints)
    class_names: tuple[str, ...] | None = None
    none_class: bool = False
    normalisation: str | None = None
    population: str | None = None
    silo: str | None = None
    kind: str | None = None
    class_counts: tuple[int, ...] | None = None
    resize: Literal["squash", "crop", "pad"] | None = None
    policy: Policy = field(default_factory=Policy)
    notes: tuple[str, ...] = ()


def read_shape(text: str) -> tuple[int, int, int]:
    """`3x224x224` -> (channels, height, width).

    Raises:
        ConfigError: where it is something else.
    """
    found = _SHAPE.fullmatch(text.strip().lower())
    channels, height, width = (int(part) for part in found.groups()) if found else (0, 0, 0)
    if min(channels, height, width) < 1:
        constraint = "must be channels x height x width"
        remedy = "for example --input 3x224x224 for colour, 1x28x28 for grey pictures"
        if found is None and re.fullmatch(r"\d+x\d+(x\d+)?", text):
            remedy = f"channels come first, {remedy}"
        raise ConfigError(explain("--input", text, constraint, remedy))
    if channels > 16 >= width or channels > 4 >= width:  # no picture is four pixels wide
        remedy = f"channels come first: --input {width}x{channels}x{height}"
        raise ConfigError(explain("--input", text, f"has {channels} channels", remedy))
    return channels, height, width


def named_normalisation(text: str, channels: int, option: str = "--normalisation") -> Normalisation:
    """A normalisation by its name or as mean/std.

    Args:
        text: one of `NORMALISATIONS`, or two numbers or two lists of them, as in 0.1307/0.3081.
        channels: number of channels C.
        option: name of what said it, for messages.

    Raises:
        ConfigError: where it is something else, or does not fit the channels.
    """
    if text == "imagenet":
        if channels != len(_IMAGENET[0]):
            constraint = f"is of 3 channels, and the images have {channels}"
            raise ConfigError(explain(option, text, constraint, "give mean/std, or another image shape"))
        return Normalisation(mean=_IMAGENET[0], std=_IMAGENET[1])
    plain = {"half": (0.5, 0.5), "none": (0.0, 1.0), "bytes": (0.0, 1 / 255)}
    if text in plain:
        mean, std = plain[text]
        return Normalisation(mean=(mean,) * channels, std=(std,) * channels)
    known = ", ".join(NORMALISATIONS)
    remedy = f"use one of {known}, or mean/std, for example 0.1307/0.3081 or 0.5,0.5,0.5/0.2,0.2,0.2"
    try:
        means, stds = (tuple(float(number) for number in half.split(",")) for half in text.split("/"))
    except ValueError as error:
        raise ConfigError(explain(option, text, "is no normalisation", remedy)) from error
    for values in (means, stds):
        if len(values) not in (1, channels):
            constraint = f"must be one number, or one for each of {channels} channels"
            raise ConfigError(explain(option, text, constraint, remedy))
    if min(stds) <= 0 or not all(abs(value) < 1e6 for value in (*means, *stds)):
        raise ConfigError(explain(option, text, "std must be > 0, and all be finite", remedy))
    if max(means) > 1.5 or max(stds) > 1.5:
        shown = tuple(tuple(round(value / 255, 4) for value in values) for values in (means, stds))
        constraint = "is of pixels in [0, 255], and here they are in [0, 1] first"
        divided = "/".join(",".join(map(str, values)) for values in shown)
        raise ConfigError(explain(option, text, constraint, f"divide by 255: {divided}"))
    broad_means, broad_stds = (values * channels if len(values) == 1 else values for values in (means, stds))
    return Normalisation(mean=broad_means, std=broad_stds)


def ask_for_the_rest(found: Recognised, wishes: Wishes) -> None:
    """Does nothing where all is known that a manifest needs.

    Raises:
        ConfigError: naming at once all that neither the file nor the owner says, and the option for each.
    """
    outputs = "" if found.outputs is None else f" of its {found.outputs} outputs"
    named = "; ".join(f"{name}: {meaning}" for name, meaning in NORMALISATIONS.items())
    questions = {
        "--input 3x224x224": (found.image_shape is None, "shape of the images, channels x height x width"),
        "--classes names.txt": (
            wishes.class_names is None and found.class_names is None,
            f"a text file with the names of the classes, one a line, in the order{outputs or ' of its outputs'}",
        ),
        "--normalisation NAME": (
            found.normalisation is None,
            f"what was done to pixels before the model was trained on them ({named}; or mean/std as numbers)",
        ),
        "--probabilities or --logits": (
            found.image_shape is not None and found.normalisation is not None and found.probabilities is None,
            "whether its outputs have gone through a softmax already; a trial does not show it",
        ),
        "--population NAME": (
            wishes.population is None,
            "whose records it was trained on, such as 'patients of clinic north': the budget is kept for that name",
        ),
    }
    missing = [f"  {option}: {question}" for option, (wanted, question) in questions.items() if wanted]
    if missing:
        raise ConfigError("\n".join([f"the model ({found.kind}) is read; please add what it does not say:", *missing]))
