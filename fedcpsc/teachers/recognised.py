# SPDX-License-Identifier: Apache-2.0
"""What an owner says of a model file, and what was found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.manifest import Normalisation

__all__ = ["Hints", "Recognised", "Source", "against_file", "overruled"]


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the owner says of a model; all of it may be left out.

    Attributes:
        entry_point: name "module:function" of Python code that makes the teacher; the format is then `python`.
        architecture: name of the network whose weights the file holds: one of `models.registry`, of torchvision or of
            timm. `torchvision/resnet18` and `timm/resnet18` say of which.
        width: width of a network of `models.registry`, >= 1.
        image_shape: shape (C, H, W) of the images that the model takes.
        outputs: number of the model's outputs, >= 2.
        normalisation: public constants that the model was trained with.
        probabilities: whether the outputs are probabilities; None finds out by a trial.
        output: name of the output to use, where an ONNX model has several.
        allow_code: whether the owner says that a format may be opened that can run code from the file.
    """

    entry_point: str | None = None
    architecture: str | None = None
    width: int | None = None
    image_shape: tuple[int, int, int] | None = None
    outputs: int | None = None
    normalisation: Normalisation | None = None
    probabilities: bool | None = None
    output: str | None = None
    allow_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A model file, and what is known of it. None stands where neither the file nor the owner says.

    Attributes:
        kind: teacher format, one of `choices.TEACHER_FORMATS`.
        architecture: name of the network for the manifest; the kind again where it has none.
        width: width of the network for the manifest.
        entry_point: name "module:function" for the manifest; None for every kind but `python`.
        outputs: number of outputs, which is the number of classes, or one more with an output for "none of these".
        image_shape: shape (C, H, W) of the images that the model takes.
        channels: number of channels C of the images, known also where their sides are not.
        fixed_batch: number of images that the model takes at a time; None where it takes any.
        class_names: names of the classes in the order of the outputs.
        normalisation: public constants that the model was trained with.
        resize: way in which pictures were brought to the image's shape: squash, crop or pad.
        probabilities: whether the outputs are probabilities.
        notes: sentences for the owner: what was found, changed or left out.
        weights: content of the silo's weights file.
    """

    kind: str
    architecture: str
    width: int = 1
    entry_point: str | None = None
    outputs: int | None = None
    image_shape: tuple[int, int, int] | None = None
    channels: int | None = None
    fixed_batch: int | None = None
    class_names: tuple[str, ...] | None = None
    normalisation: Normalisation | None = None
    resize: Literal["squash", "crop", "pad"] | None = None
    probabilities: bool | None = None
    notes: tuple[str, ...] = ()
    weights: bytes = field(repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the attributes that a manifest needs and that are not known yet, in the order to ask for them."""
        asked = ("image_shape", "normalisation", "outputs", "probabilities")
        return tuple(name for name in asked if getattr(self, name) is None)


def overruled(what: str, said: str | None, own: str | None, where: str) -> list[str]:
    """A sentence for the owner where what is said holds against what a file says; else none.

    Args:
        what: what both speak of, such as "image shape".
        said: what the owner says, in words; None where nothing.
        own: what the file says, in words; None where nothing.
        where: name of the file.
    """
    if said is None or own is None or said == own:
        return []
    return [f"warning: {what} {said} is taken as you say, although {where} says {own}"]


def against_file(
    hints: Hints, shape: tuple[int, int, int] | None, normalisation: Normalisation | None, where: str
) -> list[str]:
    """Sentences about what the owner says otherwise than a file of the model.

    Args:
        hints: what the owner says.
        shape: shape (C, H, W) of the images by the file; None where it does not say.
        normalisation: constants by the file; None where it does not say.
        where: name of the file.
    """
    said_shape, own_shape = (each and "x".join(map(str, each)) for each in (hints.image_shape, shape))
    said, own = (None if each is None else each.in_words() for each in (hints.normalisation, normalisation))
    return [
        *overruled("image shape", said_shape or None, own_shape or None, where),
        *overruled("normalisation", said, own, where),
    ]


@dataclass(frozen=True)
class Source:
    """A model on the disk.

    Attributes:
        path: path of the file or folder.
        content: what its content is, one of `content.Content`.
        hints: what its owner says of it.
    """

    path: Path
    content: str
    hints: Hints

    def check_word(self, what: str) -> None:
        """Does nothing where the owner said that code in the file may run.

        Args:
            what: what the file is, and what it could run.

        Raises:
            ManifestError: where the owner did not.
        """
        if not self.hints.allow_code:
            remedy = (
                "say so (--allow-code) where you or someone you trust made this file; else bring ONNX or a state dict"
            )
            raise ManifestError(explain("model", str(self.path), f"is {what}: it is not opened unasked", remedy))
