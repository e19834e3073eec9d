# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a network of torchvision with weights in safetensors."""

from __future__ import annotations

from functools import partial

from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.library_teacher import load_of
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["TORCHVISION"]


TORCHVISION = TeacherFormat(
    name="torchvision",
    summary="a network of torchvision",
    when="for a classifier that was trained as a network of torchvision, with its outputs replaced",
    weights_file="state dict of a classification network of torchvision, as safetensors",
    load=partial(load_of, "torchvision"),
    recognise=recognise_weights,
    code="none: tensors; the network is torchvision's installed code",
    checks="names and shapes of all tensors",
)
