# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a `torch.export` archive (.pt2).

`torch.export.load` unpickles what the archive marks as pickled and evaluates expressions of sizes, so such a file can
run code when it is opened: it is adopted only by its owner's word, and afterwards covered by the manifest's SHA-256.
"""

from __future__ import annotations

import io
import logging

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.image_input import ImageInput, check_raw, image_input
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.teachers.said_in_file import extra_files, with_entries
from fedcpsc.teachers.torch_teacher import TorchTeacher
from fedcpsc.teachers.trying import tried

__all__ = ["TORCH_EXPORT"]

_TYPES: dict[torch.dtype, type[np.generic]] = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.float64: np.float64,
    torch.uint8: np.uint8,
}


def load(weights: bytes, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher of a torch.export archive.

    Raises:
        ManifestError: where it cannot be loaded, or does not take one batch of images of the manifest's shape.
    """
    program = _program(weights, WEIGHTS_FILE)
    taken = _input(program, WEIGHTS_FILE, manifest.image_shape)
    check_raw(taken, manifest.normalisation, WEIGHTS_FILE)
    dtype = next(own for own, other in _TYPES.items() if other is taken.dtype)
    module = program.module()

    def network(pixels: Tensor) -> Tensor:
        if taken.channels_last:
            pixels = pixels.permute(0, 2, 3, 1).contiguous()
        found: Tensor = module((pixels.round() if dtype is torch.uint8 else pixels).to(dtype))
        return found

    return TorchTeacher(network, manifest, batch_size, taken.batch)


def _recognise(source: Source) -> Recognised:
    """What a torch.export archive says of itself.

    Raises:
        ManifestError: where its owner did not say that it may be opened, or no teacher can be made of it.
    """
    source.check_word("a torch.export archive, and torch unpickles parts of it, which can run code")
    weights = source.path.read_bytes()
    taken = _input(_program(weights, str(source.path)), str(source.path), source.hints.image_shape)
    facts = Recognised(
        kind="torch_export",
        architecture="torch_export",
        image_shape=taken.image_shape,
        channels=taken.channels,
        fixed_batch=taken.batch,
        normalisation=taken.normalisation(source.hints.normalisation),
        notes=tuple(taken.notes()),
        weights=weights,
    )
    return with_entries(tried(facts, source, load), source, extra_files(source.path))


def _program(data: bytes, name: str) -> ExportedProgram:
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback of its own before it raises
    try:
        return torch.export.load(io.BytesIO(data))
    except Exception as error:  # whatever a damaged or foreign archive causes
        shown = f"cannot be loaded by torch {torch.__version__} ({str(error).partition(chr(10))[0][:150]})"
        remedy = "export it with the torch that is installed here, or bring ONNX"
        raise ManifestError(explain("weights", name, shown, remedy)) from error
    finally:
        log.setLevel(level)


def _input(program: ExportedProgram, name: str, wanted: tuple[int, int, int] | None) -> ImageInput:
    """The program's one input.

    Raises:
        ManifestError: where it takes anything but one batch of images, or gives anything but one tensor.
    """
    takes, gives = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    if len(takes) != 1 or len(gives) != 1:
        shown = f"takes {len(takes)} inputs and gives {len(gives)} outputs, must take images and give [N, K]"
        raise ManifestError(explain("model", name, shown, "export a module whose forward(images) returns logits alone"))
    value = next(node.meta["val"] for node in program.graph.nodes if node.name == takes[0])
    if not isinstance(value, Tensor) or value.dtype not in _TYPES:
        shown = f"takes {getattr(value, 'dtype', type(value).__name__)}, must take one of {', '.join(map(str, _TYPES))}"
        raise ManifestError(explain("model", name, shown, "export it with a float32 input"))
    sizes: list[int | None] = [size if isinstance(size, int) else None for size in value.shape]
    return image_input(str(takes[0]), _TYPES[value.dtype], sizes, name, wanted)


TORCH_EXPORT = TeacherFormat(
    name="torch_export",
    summary="a program that torch.export wrote",
    when="for a classifier in PyTorch whose network is neither this project's nor a library's",
    weights_file="a .pt2 archive of `torch.export.save`: images [N, C, H, W], normalised as the manifest says",
    load=load,
    recognise=_recognise,
    code="any: torch unpickles parts of the file, so it is adopted only by its owner's word",
    checks="one input of images, one output; type, layout and fixed batch; torch's version",
)
