# SPDX-License-Identifier: Apache-2.0
"""A teacher in ONNX form, run by onnxruntime on the CPU; needs the extra `onnx`, and no torch.

The weights file is the whole model. An ONNX model may name other files that hold its weights, which would be looked for
in the process's working directory and are covered by no hash: such a model is refused before anything is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, read_weights
from fedcpsc.teachers.protocol import Floats, checked

__all__ = ["ONNX", "OnnxTeacher"]


class OnnxTeacher:
    """Implements `Teacher`.

    Args:
        model: an ONNX file with one input, float32 [N, C, H, W] normalised as the manifest says, N free, and logits
            float32 [N, K] as its first output.
        manifest: manifest of the teacher.
        batch_size: number of images per run.

    Raises:
        ManifestError: where onnx or onnxruntime is not installed, the model keeps weights in other files, or it cannot
            be run.
    """

    def __init__(self, model: bytes, manifest: Manifest, batch_size: int = 500) -> None:
        try:
            import onnx  # noqa: F401, PLC0415 - an extra; its half that reads a model without running it
            import onnxruntime  # noqa: PLC0415 - likewise
        except ImportError as error:
            raise ManifestError(
                explain("kind", "onnx", "needs onnx and onnxruntime", "install them: pip install 'fedcpsc[onnx]'")
            ) from error
        _check_whole(model)
        try:
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no public base
            raise _no_model(error) from error
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._batch_size = batch_size
        self._mean = np.array(manifest.normalisation.mean, np.float32)[:, None, None]
        self._std = np.array(manifest.normalisation.std, np.float32)[:, None, None]

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K], of uint8 images [N, C, H, W].

        Raises:
            TeacherError: where the model fails or gives anything else.
        """
        parts = []
        for start in range(0, len(images), self._batch_size):
            pixels = images[start : start + self._batch_size].astype(np.float32) / np.float32(255)
            try:
                (logits,) = self._session.run([self._output], {self._input: (pixels - self._mean) / self._std})
            except Exception as error:  # onnxruntime's own classes share no public base
                raise TeacherError(
                    explain("teacher", "onnx", f"failed ({type(error).__name__})", "check its input shape")
                ) from error
            parts.append(_softmax(np.asarray(logits)))
        return checked(np.concatenate(parts), len(images), self.classes)


def _open(folder: Path, manifest: Manifest, batch_size: int) -> OnnxTeacher:
    """The ONNX teacher whose model is the weights file in `folder`.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    return OnnxTeacher(read_weights(folder, manifest), manifest, batch_size)


def _check_whole(model: bytes) -> None:
    """Does nothing where the model holds all its weights itself.

    Raises:
        ManifestError: where it names other files for them, or is no ONNX model.
    """
    import onnx  # noqa: PLC0415 - an extra

    try:
        parsed = onnx.ModelProto.FromString(model)  # unlike onnx.load, follows no path
    except Exception as error:  # protobuf's own class, of whichever of its implementations
        raise _no_model(error) from error
    elsewhere = sorted(set(_files_named(parsed)))
    if elsewhere:
        remedy = (
            "fold them into one file: torch.onnx.export(..., external_data=False), or"
            " onnx.save(onnx.load(path), path, save_as_external_data=False); and give the manifest its SHA-256"
        )
        shown = f"keeps weights in another file ({', '.join(elsewhere)[:100]}), which is not read"
        raise ManifestError(explain("weights", WEIGHTS_FILE, shown, remedy))


def _files_named(message: Any) -> Iterator[str]:
    """Files in which the tensors below a protobuf message keep their values, wherever in the model they stand."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        if message.data_location == message.EXTERNAL or message.external_data:
            places = [entry.value for entry in message.external_data if entry.key == "location"]
            yield from places or ["which is not named"]
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                yield from _files_named(part)


def _no_model(error: Exception) -> ManifestError:
    return ManifestError(
        explain(
            "weights", WEIGHTS_FILE, f"is no ONNX model that can be run ({type(error).__name__})", "export it again"
        )
    )


def _softmax(logits: npt.NDArray[np.float32]) -> Floats:
    if logits.ndim != 2:
        raise TeacherError(explain("teacher output", list(logits.shape), "must be logits [N, K]", "export it again"))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


ONNX = TeacherFormat(
    name="onnx",
    summary="a model for onnxruntime",
    when="for a classifier from another framework",
    needs="`pip install 'fedcpsc[onnx]'`",
    weights_file="an ONNX model in one file: float32 [N, C, H, W], normalised as the manifest says, to logits",
    open=_open,
)
