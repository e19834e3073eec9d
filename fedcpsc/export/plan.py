# SPDX-License-Identifier: Apache-2.0
"""The formats, and what a check of one says. Torch-free, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedcpsc.errors import ConfigError, explain
from fedcpsc.runs.layout import STUDENT_FILE

__all__ = ["CHECK_INPUTS", "Check", "Format", "format_named"]

CHECK_INPUTS = 1000


class Format(StrEnum):
    """How the student is written."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    SAFETENSORS = "safetensors"

    @property
    def file(self) -> str:
        """Its file's name."""
        return {"onnx": "student.onnx", "torch-export": "student.pt2", "safetensors": STUDENT_FILE}[self]


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Format(name)
    except ValueError:
        known = ", ".join(Format)
        raise ConfigError(explain("format", name, f"must be one of {known}", "name one of them")) from None


@dataclass(frozen=True)
class Check:
    """The written file, opened again and run beside the network it was made of.

    Attributes:
        inputs: number of images, >= 1.
        max_difference: largest absolute difference of two logits.
        tolerance: largest difference allowed; 0 where the two must be equal bit for bit.
        checked_with: name of the program that ran the file.
    """

    inputs: int
    max_difference: float
    tolerance: float
    checked_with: str
