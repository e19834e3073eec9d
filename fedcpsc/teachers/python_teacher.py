# SPDX-License-Identifier: Apache-2.0
"""A teacher that is any Python code the silo's owner has installed.

The entry point stands in the silo's own manifest, beside its weights: never in a message, never in a run's YAML. Naming
it there is as trusted as installing the package it names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.image_input import raw_pixels, takes_raw_pixels
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.protocol import Floats, checked
from fedcpsc.teachers.recognised import Recognised, Source

__all__ = ["PYTHON", "PythonTeacher"]

Predict = Callable[[npt.NDArray[np.uint8]], Floats]


class PythonTeacher:
    """Implements `Teacher`.

    Args:
        predict: function from uint8 [N, C, H, W] to probabilities float32 [N, K].
        manifest: manifest of the teacher.
    """

    def __init__(self, predict: Predict, manifest: Manifest) -> None:
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self._predict = predict

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K].

        Raises:
            TeacherError: where the code fails or gives anything else.
        """
        try:
            found = np.asarray(self._predict(images))
        except Exception as error:  # the owner's code: whatever it raises, only its kind is shown
            raise TeacherError(explain("teacher", type(error).__name__, "was raised by its code", "fix it")) from error
        return checked(found, len(images), self.classes)


def load(weights: bytes, manifest: Manifest, batch_size: int) -> PythonTeacher:
    """Calls the manifest's `module:function` with the weights' bytes; what it returns is the teacher's `predict`.

    Raises:
        ManifestError: where the entry point cannot be imported or called.
    """
    del batch_size  # the owner's code decides how many images it takes at a time
    module, _, name = (manifest.entry_point or "").partition(":")
    try:
        return PythonTeacher(getattr(importlib.import_module(module), name)(weights), manifest)
    except Exception as error:  # the owner's code, shown to the owner
        raise ManifestError(
            explain("entry_point", manifest.entry_point, f"cannot be used ({error!r})", "install or fix it")
        ) from error


def _recognise(source: Source) -> Recognised:
    """The file that an entry point reads. Its code is not run here: what it takes and gives is its owner's word.

    Raises:
        ManifestError: where its owner says that it takes or gives something else than such code does.
        OSError: where the file cannot be read.
    """
    hints = source.hints
    channels = None if hints.image_shape is None else hints.image_shape[0]
    said = hints.normalisation
    if said is not None and not takes_raw_pixels(said):
        remedy = f"leave it out, and normalise in {hints.entry_point} itself"
        raise ManifestError(
            explain("normalisation", said.in_words(), "an entry point takes pixels as they are", remedy)
        )
    if hints.probabilities is False:
        remedy = f"leave it out, and apply the softmax in {hints.entry_point} itself"
        raise ManifestError(explain("outputs", "logits", "an entry point returns probabilities", remedy))
    return Recognised(
        kind="python",
        architecture="python",
        entry_point=hints.entry_point,
        outputs=hints.outputs,
        image_shape=hints.image_shape,
        channels=channels,
        normalisation=None if channels is None else raw_pixels(channels),
        probabilities=True,
        notes=("the entry point takes pixels as they are, uint8, and returns probabilities",),
        weights=source.path.read_bytes(),
    )


PYTHON = TeacherFormat(
    name="python",
    summary="Python code that the silo's owner has installed",
    when="for a classifier that is neither a network of this project nor an ONNX model",
    needs="the module, installed at the silo",
    weights_file="anything; `entry_point: module:function` is called with its bytes and returns `predict(images)`",
    load=load,
    recognise=_recognise,
    code="any: it is the owner's own code",
    checks="the entry point can be imported and called",
)
