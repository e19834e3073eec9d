# SPDX-License-Identifier: Apache-2.0
"""An ONNX model in onnxruntime: what it takes, what it gives, and how images are brought to it.

float16 and float64 inputs are cast to, channels-last inputs are transposed to, and a fixed batch is filled up by
repeating its last image. A uint8 input takes pixels as they are. Whatever else a model asks for is refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.teachers.image_input import ImageInput, image_input
from fedcpsc.teachers.protocol import Floats

__all__ = ["OnnxModel"]

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_NEWER_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_NEWER_OPSET = re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL)


class OnnxModel:
    """An ONNX model that can be run.

    Args:
        model: content of the file, which names no other files.
        name: what the file is called in messages.
        image_shape: shape (C, H, W) of the images that it will be given; None takes what the model says.
        outputs: number of outputs that is wanted; None takes any.

    Raises:
        ManifestError: where onnxruntime cannot run it, it does not take one batch of such images, or it is not certain
            which of several outputs is meant.
    """

    def __init__(
        self, model: bytes, name: str, image_shape: tuple[int, int, int] | None = None, outputs: int | None = None
    ) -> None:
        import onnxruntime  # noqa: PLC0415 - an extra, checked where the model was parsed

        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, quiet, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no public base
            raise _cannot_run(error, name, onnxruntime.__version__) from error
        self.input = _input(self._session.get_inputs(), name, image_shape)
        self.output, self.outputs = _output(self._session.get_outputs(), name, outputs)

    def run(self, pixels: npt.NDArray[np.generic]) -> Floats:
        """The outputs as they are, float32 [n, K], for any number of images.

        Args:
            pixels: images [n, C, H, W] as the network wants them: float32 normalised, or uint8 where its input is that.

        Raises:
            TeacherError: where the model fails.
        """
        count, batch = len(pixels), self.input.batch
        if self.input.channels_last:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        pixels = pixels.astype(self.input.dtype, copy=False)
        parts = []
        for start in range(0, count, batch or count):
            part = pixels[start : start + (batch or count)]
            if batch and len(part) < batch:
                part = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            try:
                (found,) = self._session.run([self.output], {self.input.name: part})
            except Exception as error:  # onnxruntime's own classes share no public base
                given = f"{part.dtype}{list(part.shape)}"
                shown = f"failed on {given} ({type(error).__name__}: {_last_words(error)})"
                raise TeacherError(explain("teacher", "onnx", shown, "check its input's shape and type")) from error
            parts.append(np.asarray(found, np.float32))
        return np.concatenate(parts)[:count]


def _input(inputs: list[Any], name: str, wanted: tuple[int, int, int] | None) -> ImageInput:
    """The model's one input.

    Raises:
        ManifestError: where it does not take one batch of images, or not of the shape that is wanted.
    """
    if len(inputs) != 1:
        shown = f"takes {len(inputs)} inputs ({', '.join(each.name for each in inputs)[:100]}), must take images alone"
        raise ManifestError(explain("model", name, shown, "export a model of one input, with the others fixed in it"))
    (taken,) = inputs
    if taken.type not in _TYPES:
        shown = f"takes {taken.type}, must take one of {', '.join(_TYPES)}"
        raise ManifestError(explain("model", name, shown, "export it with a float32 input"))
    sizes = [size if isinstance(size, int) and size > 0 else None for size in taken.shape]
    axes = [size if isinstance(size, str) else "" for size in taken.shape]
    return image_input(taken.name, _TYPES[taken.type], sizes, name, wanted, axes)


def _output(outputs: list[Any], name: str, wanted: int | None) -> tuple[str, int | None]:
    """Name of the output to use, and its number K where the model says it.

    Raises:
        ManifestError: where no output, or more than one, could be that.
    """

    def width(value: Any) -> int | None:
        return value.shape[1] if len(value.shape) == 2 and isinstance(value.shape[1], int) else None

    def is_numbers(value: Any) -> bool:
        return str(value.type).startswith("tensor(") and value.type != "tensor(string)"

    if len(outputs) == 1:
        if not is_numbers(outputs[0]):
            shown = f"gives {outputs[0].type} ({outputs[0].name}), must give numbers [N, K], one for each class"
            remedy = "export its logits or probabilities alone, without the step that makes labels or maps of them"
            raise ManifestError(explain("model", name, shown, remedy))
        return outputs[0].name, width(outputs[0])
    named = ", ".join(f"{value.name} {value.shape}" for value in outputs)[:300]
    likely = [value for value in outputs if wanted is not None and width(value) == wanted and is_numbers(value)]
    unsure = [value for value in outputs if width(value) is None and len(value.shape) in (0, 2)]
    if len(likely) == 1 and not unsure:
        return likely[0].name, wanted
    shown = f"has {len(outputs)} outputs ({named})"
    shown += "" if wanted is None else f", of which not exactly one is [N, {wanted}]"
    raise ManifestError(explain("model", name, shown, "say which holds the classes, or export that one alone"))


def _cannot_run(error: Exception, name: str, version: str) -> ManifestError:
    """Why onnxruntime does not take a model, in words."""
    said = str(error)
    if newer := _NEWER_IR.search(said):
        shown = f"has ONNX IR version {newer[1]}, and onnxruntime {version} takes up to {newer[2]}"
        remedy = "upgrade onnxruntime, or export the model with an earlier version of onnx"
        return ManifestError(explain("weights", name, shown, remedy))
    if newer := _NEWER_OPSET.search(said):
        shown = f"uses opset {newer[1]} of {newer[2]}, and onnxruntime {version} takes up to {newer[3]}"
        remedy = f"upgrade onnxruntime, or export again: torch.onnx.export(..., opset_version={newer[3].rstrip('.')})"
        return ManifestError(explain("weights", name, shown.rstrip("."), remedy))
    shown = f"is no ONNX model that can be run ({type(error).__name__}: {_last_words(error)})"
    return ManifestError(explain("weights", name, shown, "export it again"))


def _last_words(error: Exception) -> str:
    """The end of onnxruntime's message, in one line: it begins with codes and C++ signatures."""
    words = " ".join("".join(letter for letter in str(error) if letter.isprintable() or letter.isspace()).split())
    return words[-200:]
