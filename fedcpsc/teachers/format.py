# SPDX-License-Identifier: Apache-2.0
"""What a teacher format is: what its weights file holds, what it needs, and how its teacher is opened.

Which formats there are stands in `fedcpsc.choices`; a manifest chooses among them by `kind`. A module is imported when
its format is opened: an ONNX silo needs no torch, a torch silo no onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fedcpsc.choices import TEACHER_FORMATS
from fedcpsc.registry import Entry, Registry
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.teachers.recognised import Recognised, Source

__all__ = ["FORMATS", "Loader", "Recogniser", "TeacherFormat"]

Loader: TypeAlias = Callable[[bytes, Manifest, int], Teacher]
"""(content of the weights file, the teacher's manifest, number of images per forward pass) -> the teacher.

Raises ManifestError where they do not fit together. The bytes are those whose hash the manifest names, and nothing but
the manifest chooses code.
"""

Recogniser: TypeAlias = Callable[[Source], Recognised]
"""A model on the disk -> what it is, with the content of the silo's weights file.

Raises ManifestError where no teacher of this format can be made of it, or OSError where it cannot be read.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherFormat(Entry):
    """A kind of weights file.

    Attributes:
        weights_file: description of the weights file's content.
        load: function that makes the teacher of the weights file's content.
        recognise: function that says what a finished model's file is; None where such teachers are only trained here.
        code: description of the code that a weights file can run when it is opened or asked.
        checks: description of what is checked before a teacher is taken.
    """

    weights_file: str
    load: Loader
    recognise: Recogniser | None = None
    code: str
    checks: str


FORMATS: Registry[TeacherFormat] = Registry(TEACHER_FORMATS, TeacherFormat)
