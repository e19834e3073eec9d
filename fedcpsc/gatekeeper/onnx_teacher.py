"""A teacher in ONNX form, run by onnxruntime on the CPU; needs the extra `onnx`, and no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.gatekeeper.manifest import Manifest, read_weights
from fedcpsc.gatekeeper.teachers import Floats, checked

__all__ = ["OnnxTeacher", "open_onnx"]


class OnnxTeacher:
    """Implements `Teacher`.

    Args:
        model: an ONNX file with one input, float32 [N, C, H, W] normalised as the manifest says, N free, and logits
            float32 [N, K] as its first output.
        manifest: of the teacher.
        batch_size: images per run.

    Raises:
        ManifestError: where onnxruntime is not installed or cannot read the model.
    """

    def __init__(self, model: bytes, manifest: Manifest, batch_size: int = 500) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ManifestError(
                explain("kind", "onnx", "needs onnxruntime", "install it: pip install 'fedcpsc[onnx]'")
            ) from error
        try:
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no public base
            raise ManifestError(
                explain(
                    "weights", "teacher.safetensors", f"is no ONNX model ({type(error).__name__})", "export it again"
                )
            ) from error
        self.classes = manifest.classes
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


def open_onnx(folder: Path, manifest: Manifest, batch_size: int) -> OnnxTeacher:
    """The ONNX teacher whose model lies in `folder` as the weights file.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    return OnnxTeacher(read_weights(folder, manifest), manifest, batch_size)


def _softmax(logits: npt.NDArray[np.float32]) -> Floats:
    if logits.ndim != 2:
        raise TeacherError(explain("teacher output", list(logits.shape), "must be logits [N, K]", "export it again"))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probabilities
