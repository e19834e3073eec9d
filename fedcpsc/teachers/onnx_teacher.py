# SPDX-License-Identifier: Apache-2.0
"""A teacher in ONNX form, run by onnxruntime on the CPU; needs the extra `onnx`, and no torch.

The weights file is the whole model. An ONNX model may name other files that hold its weights, which would be looked for
in the process's working directory and are covered by no hash: such a model is refused before anything is looked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.image_input import check_raw
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.onnx_file import check_whole, folded, parse, with_one_output
from fedcpsc.teachers.onnx_model import OnnxModel
from fedcpsc.teachers.outputs import to_probabilities
from fedcpsc.teachers.protocol import Floats, checked
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.teachers.said_in_file import with_entries
from fedcpsc.teachers.trying import tried

__all__ = ["ONNX", "OnnxTeacher"]


class OnnxTeacher:
    """Implements `Teacher`.

    Args:
        model: an ONNX file with one input, images [N, C, H, W] (or [N, H, W, C]) of float32, float16 or float64,
            normalised as the manifest says, or of uint8 where the normalisation says "pixels as they are"; and one
            output of [N, K].
        manifest: manifest of the teacher.
        batch_size: number of images per run; a batch that the model fixes goes before.

    Raises:
        ManifestError: where onnx or onnxruntime is not installed, the model keeps weights in other files, cannot be
            run, or does not fit the manifest.
    """

    def __init__(self, model: bytes, manifest: Manifest, batch_size: int = 500) -> None:
        check_whole(parse(model, WEIGHTS_FILE), WEIGHTS_FILE)
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self._model = OnnxModel(model, WEIGHTS_FILE, manifest.image_shape, self.classes)
        self._raw = self._model.input.dtype is np.uint8
        check_raw(self._model.input, manifest.normalisation, WEIGHTS_FILE)
        self._batch_size = batch_size
        self._probabilities = manifest.probabilities
        self._mean = np.array(manifest.normalisation.mean, np.float32)[:, None, None]
        self._std = np.array(manifest.normalisation.std, np.float32)[:, None, None]

    def outputs(self, images: npt.NDArray[np.uint8]) -> Floats:
        """The model's outputs as they are, float32 [N, K].

        Raises:
            TeacherError: where the model fails.
        """
        parts = []
        for start in range(0, len(images), self._batch_size):
            part: npt.NDArray[np.generic] = images[start : start + self._batch_size]
            if not self._raw:
                part = (part.astype(np.float32) / np.float32(255) - self._mean) / self._std
            parts.append(self._model.run(part))
        return np.concatenate(parts)

    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K], of uint8 images [N, C, H, W].

        Raises:
            TeacherError: where the model fails or gives anything else.
        """
        found = to_probabilities(self.outputs(images), probabilities=self._probabilities)
        return checked(found, len(images), self.classes)


def _recognise(source: Source) -> Recognised:
    """What an ONNX file says of itself; its weights in other files are folded in.

    Raises:
        ManifestError: where no teacher can be made of it, or not without a word of its owner.
    """
    path, hints, notes = source.path, source.hints, list[str]()
    data = path.read_bytes()
    parsed = parse(data, str(path))
    if outside := folded(parsed, path.parent):
        notes.append(f"weights of {', '.join(outside)} were put into the model: it is one file now")
    if hints.output is not None:
        several = len(parsed.graph.output) > 1
        with_one_output(parsed, hints.output)
        notes += [f"the output {hints.output} is used, the others were left out"] if several else []
    if notes:
        data = parsed.SerializeToString()
    several = len(parsed.graph.output) > 1
    entries = {entry.key: entry.value for entry in parsed.metadata_props}
    del parsed
    model = OnnxModel(data, str(path), hints.image_shape, hints.outputs)
    taken = model.input
    if several:
        notes.append(f"of its outputs, {model.output} is used: it alone is as wide as the classes are many")
    facts = Recognised(
        kind="onnx",
        architecture="onnx",
        outputs=model.outputs,
        image_shape=taken.image_shape,
        channels=taken.channels,
        fixed_batch=taken.batch,
        normalisation=taken.normalisation(hints.normalisation),
        notes=(*notes, *taken.notes()),
        weights=data,
    )
    del model
    return with_entries(tried(facts, source, OnnxTeacher), source, entries)


ONNX = TeacherFormat(
    name="onnx",
    summary="a model for onnxruntime",
    when="for a classifier from another framework",
    needs="`pip install 'fedcpsc[onnx]'`",
    weights_file="an ONNX model in one file: images [N, C, H, W], normalised as the manifest says, to [N, K]",
    load=OnnxTeacher,
    recognise=_recognise,
    code="none: a graph of known operators",
    checks="weights in one file; one input of images; type, layout and fixed batch; which output; versions",
)
