# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a network of timm with weights in safetensors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.library_teacher import load_of
from fedcpsc.teachers.manifest import Manifest, read_weights
from fedcpsc.teachers.torch_teacher import TorchTeacher
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["TIMM"]


def _open(folder: Path, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher whose weights are in `folder`.

    Raises:
        ManifestError: where weights and manifest disagree, or timm has no such network.
    """
    return load_of("timm", read_weights(folder, manifest), manifest, batch_size)


TIMM = TeacherFormat(
    name="timm",
    summary="a network of timm",
    when="for a classifier that was trained as a network of timm, with its outputs replaced",
    needs="`pip install 'fedcpsc[timm]'`",
    weights_file="state dict of a classification network of timm, as safetensors",
    open=_open,
    load=partial(load_of, "timm"),
    recognise=recognise_weights,
    code="none: tensors; the network is timm's installed code",
    checks="names and shapes of all tensors",
)
