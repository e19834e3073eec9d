# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a network of timm with weights in safetensors."""

from __future__ import annotations

from functools import partial

from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.library_teacher import load_of
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["TIMM"]


TIMM = TeacherFormat(
    name="timm",
    summary="a network of timm",
    when="for a classifier that was trained as a network of timm, with its outputs replaced",
    needs="`pip install 'fedcpsc[timm]'`",
    weights_file="state dict of a classification network of timm, as safetensors",
    load=partial(load_of, "timm"),
    recognise=recognise_weights,
    code="none: tensors; the network is timm's installed code",
    checks="names and shapes of all tensors",
)
