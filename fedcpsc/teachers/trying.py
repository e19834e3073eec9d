# SPDX-License-Identifier: Apache-2.0
"""What a model shows of itself when it is run on invented images, before there is a manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from fedcpsc.errors import ConfigError, ManifestError, TeacherError, explain
from fedcpsc.teachers.format import Loader
from fedcpsc.teachers.invented import invented_images
from fedcpsc.teachers.manifest import Manifest, Normalisation
from fedcpsc.teachers.outputs import MISREAD, meaning_of
from fedcpsc.teachers.protocol import Floats, WithOutputs
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.typed_yaml import validate

__all__ = ["Settled", "settle_outputs", "tried"]

_TRIED = 8  # images


@dataclass(frozen=True)
class Settled:
    """What a model's outputs are.

    Attributes:
        number: number of outputs, >= 2.
        probabilities: whether they are probabilities; None where a trial does not show it, and nobody says.
        notes: sentences for the owner.
    """

    number: int
    probabilities: bool | None
    notes: tuple[str, ...]


def tried(facts: Recognised, source: Source, make: Loader) -> Recognised:
    """The same with what a trial shows: number of outputs, and whether they are probabilities.

    Args:
        facts: what the file says; without an image shape nothing is tried.
        source: model on the disk, with its owner's hints.
        make: function that makes the teacher of the weights.

    Raises:
        ManifestError: where the model cannot be run on images of that shape, gives something else than it or its owner
            says, or gives what are neither logits nor probabilities.
    """
    hints = source.hints
    facts = dataclasses.replace(facts, probabilities=hints.probabilities)
    if facts.image_shape is None:
        return dataclasses.replace(facts, outputs=_agreed(facts.outputs, source))
    found = settle_outputs(_opened(facts, facts.image_shape, source, make), hints.probabilities, str(source.path))
    _agreed(found.number, source)
    notes = (*facts.notes, *found.notes)
    return dataclasses.replace(facts, outputs=found.number, probabilities=found.probabilities, notes=notes)


def settle_outputs(teacher: WithOutputs, said: bool | None, where: str) -> Settled:
    """What a model's outputs are, by its owner's word and by a trial on invented images.

    Args:
        teacher: model with `image_shape`, as a teacher.
        said: whether its owner says that they are probabilities; None where nobody says.
        where: name of the model in messages.

    Raises:
        ManifestError: where the model cannot be run on images of that shape, gives something else than its owner says,
            or gives what are neither logits nor probabilities.
    """
    outputs = _outputs(teacher, where)
    number = outputs.shape[1]
    if number < 2:
        remedy = "export a model of two outputs, softmax over (other, class); a sigmoid p gives (1 - p, p)"
        raise ManifestError(explain("outputs", number, "one output cannot tell two classes apart here", remedy))
    meaning, notes = meaning_of(outputs), []
    probabilities = said
    if meaning in MISREAD:
        shown, remedy = MISREAD[meaning]
        if probabilities is not False or meaning == "negated_log_probabilities":
            raise ManifestError(explain("outputs", where, shown, remedy))
        notes.append(f"the outputs {shown}, and their owner says that they are logits")
    if meaning == "probabilities" and probabilities is False:
        notes.append("the outputs are probabilities as far as a trial shows, and their owner says that they are logits")
    if meaning not in ("probabilities", "constant") and probabilities is True:
        shown = f"are {meaning.replace('_', ' ')} as far as a trial shows, no probabilities that sum to 1"
        raise ManifestError(explain("outputs", where, shown, "do not say that they are probabilities"))
    if probabilities is None and meaning != "constant":
        probabilities = meaning == "probabilities"
        if probabilities:
            notes.append("the outputs are probabilities already, a softmax inside the model: none is added")
    if meaning == "log_probabilities":
        notes.append("the outputs are logarithms of probabilities: right as they are")
    if meaning == "constant":
        notes.append("the outputs are the same for every invented image: check the model and its normalisation")
    return Settled(number, probabilities, tuple(notes))


def _agreed(found: int | None, source: Source) -> int | None:
    """The number of outputs; as the owner says where the file does not.

    Raises:
        ManifestError: where the two differ.
    """
    wanted = source.hints.outputs
    if found is not None and wanted is not None and found != wanted:
        shown = f"the model has {found}"
        remedy = "name exactly the classes that it was trained with, in its order"
        raise ManifestError(explain("number of classes", wanted, shown, remedy))
    return wanted if found is None else found


def _opened(facts: Recognised, shape: tuple[int, int, int], source: Source, make: Loader) -> WithOutputs:
    """The model as a teacher, for a trial alone."""
    given = facts.normalisation or Normalisation(mean=(0.5,) * shape[0], std=(0.5,) * shape[0])
    number = facts.outputs or source.hints.outputs or 2
    known = {
        "silo": "trial",
        "population": "trial",
        "kind": facts.kind,
        "architecture": facts.architecture,
        "width": facts.width,
        "entry_point": facts.entry_point,
        "classes": max(number, 2),
        "image_shape": shape,
        "normalisation": given,
        "train_size": max(number, 2),
        "training": {},
        "weights_sha256": "0" * 64,
        "fingerprint": "0" * 64,
        "private_class_counts": (1,) * max(number, 2),
    }
    try:
        teacher = make(facts.weights, validate(Manifest, known, str(source.path)), 4)
    except (ConfigError, TeacherError) as error:  # what the file and its owner say does not fit together
        raise ManifestError(str(error)) from error
    assert isinstance(teacher, WithOutputs)  # noqa: S101 - every format whose models are tried shows them
    return teacher


def _outputs(teacher: WithOutputs, where: str) -> Floats:
    """Outputs of a trial, float32 [8, K], finite."""
    images = invented_images(_TRIED, teacher.image_shape)
    try:
        outputs, again = teacher.outputs(images), teacher.outputs(images[:3])
    except TeacherError as error:
        raise ManifestError(str(error)) from error
    if outputs.ndim != 2:
        shown = f"have shape {list(outputs.shape)} for {_TRIED} images, must be [{_TRIED}, K]"
        raise ManifestError(explain("outputs", where, shown, "export a classifier of whole images"))
    if not np.isfinite(outputs).all():
        raise ManifestError(explain("outputs", where, "are NaN or inf on invented images", "fix the weights"))
    if np.abs(again - outputs[:3]).max() > 0.01 * max(1.0, float(np.abs(outputs).max())):
        shown = "differ when the same images are asked again beside others: the model is in training mode"
        raise ManifestError(explain("outputs", where, shown, "call model.eval() before it is exported"))
    return outputs
