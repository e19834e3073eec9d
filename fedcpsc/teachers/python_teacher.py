"""A teacher that is any Python code the silo's owner has installed.

The entry point stands in the silo's own manifest, beside its weights: never in a message, never in a run's YAML. Naming
it there is as trusted as installing the package it names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.teachers.manifest import Manifest, read_weights
from fedcpsc.teachers.protocol import Floats, checked

__all__ = ["PythonTeacher", "open_python"]

Predict = Callable[[npt.NDArray[np.uint8]], Floats]


class PythonTeacher:
    """Implements `Teacher`.

    Args:
        predict: uint8 [N, C, H, W] -> probabilities float32 [N, K].
        manifest: of the teacher.
    """

    def __init__(self, predict: Predict, manifest: Manifest) -> None:
        self.classes = manifest.classes
        self.image_shape = manifest.image_shape
        self._predict = predict

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K].

        Raises:
            TeacherError: where the code fails or gives anything else.
        """
        try:
            found = np.asarray(self._predict(images))
        except Exception as error:  # the owner's code: whatever it raises, only its kind is told
            raise TeacherError(explain("teacher", type(error).__name__, "was raised by its code", "fix it")) from error
        return checked(found, len(images), self.classes)


def open_python(folder: Path, manifest: Manifest) -> PythonTeacher:
    """Calls the manifest's `module:function` with the weights' bytes; what it returns is the teacher's `predict`.

    Raises:
        ManifestError: where weights and manifest disagree, or the entry point cannot be imported or called.
    """
    module, _, name = (manifest.entry_point or "").partition(":")
    weights = read_weights(folder, manifest)
    try:
        return PythonTeacher(getattr(importlib.import_module(module), name)(weights), manifest)
    except Exception as error:  # the owner's code, told to the owner
        raise ManifestError(
            explain("entry_point", manifest.entry_point, f"cannot be used ({error!r})", "install or fix it")
        ) from error
