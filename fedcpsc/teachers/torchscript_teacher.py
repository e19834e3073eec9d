# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a TorchScript program (.pt of `torch.jit.save`), which torch has deprecated.

A program in TorchScript is no pickle, but code all the same: among its operations are some that read and write files.
It is adopted only by its owner's word, and afterwards covered by the manifest's SHA-256.
"""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.teachers.said_in_file import extra_files, with_entries
from fedcpsc.teachers.torch_teacher import TorchTeacher
from fedcpsc.teachers.trying import tried

__all__ = ["TORCHSCRIPT"]


def load(weights: bytes, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher of a TorchScript program.

    Raises:
        ManifestError: where it cannot be loaded.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            program = torch.jit.load(io.BytesIO(weights), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a damaged or foreign archive causes
        shown = f"cannot be loaded by torch {torch.__version__} ({str(error).partition(chr(10))[0][:150]})"
        remedy = "export it again, with torch.export or to ONNX: TorchScript is deprecated"
        raise ManifestError(explain("weights", WEIGHTS_FILE, shown, remedy)) from error
    program.eval()

    def network(pixels: Tensor) -> Tensor:
        found: Tensor = program(pixels)
        return found

    return TorchTeacher(network, manifest, batch_size)


def _recognise(source: Source) -> Recognised:
    """What a TorchScript program shows of itself; its file does not say which images it takes.

    Raises:
        ManifestError: where its owner did not say that it may be opened, or no teacher can be made of it.
    """
    source.check_word("a TorchScript program, which can read and write files when it runs")
    shape = source.hints.image_shape
    facts = Recognised(
        kind="torchscript",
        architecture="torchscript",
        image_shape=shape,
        channels=None if shape is None else shape[0],
        normalisation=source.hints.normalisation,
        notes=("TorchScript is deprecated in torch: keep the means to export this model to ONNX or torch.export",),
        weights=source.path.read_bytes(),
    )
    return with_entries(tried(facts, source, load), source, extra_files(source.path))


TORCHSCRIPT = TeacherFormat(
    name="torchscript",
    summary="a program in TorchScript, which torch has deprecated",
    when="for a finished TorchScript file whose network cannot be exported again",
    weights_file="a .pt archive of `torch.jit.save`: images [N, C, H, W], normalised as the manifest says",
    load=load,
    recognise=_recognise,
    code="a program that can read and write files, so it is adopted only by its owner's word",
    checks="that it runs on images of the shape said, any number at a time, and gives one tensor",
)
