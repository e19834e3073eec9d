# SPDX-License-Identifier: Apache-2.0
"""Opening the teacher of a silo's folder by the kind that its manifest names."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.protocol import Teacher

__all__ = ["open_teacher"]


def open_teacher(folder: Path, manifest: Manifest, batch_size: int = 500) -> Teacher:
    """The teacher in a silo's folder, of the kind its manifest names.

    Args:
        folder: the silo's folder.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass.

    Raises:
        ManifestError: weights and manifest disagree, or what the format needs is not installed.
    """
    return FORMATS.get(manifest.kind).open(folder, manifest, batch_size)
