# SPDX-License-Identifier: Apache-2.0
"""Opening the teacher of a silo's folder by the kind that its manifest names."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.large_images import images_a_pass
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.manifest import Manifest, read_weights
from fedcpsc.teachers.protocol import Teacher

__all__ = ["default_batch_size", "open_teacher"]


def default_batch_size(image_shape: tuple[int, int, int]) -> int:
    """Number of images (C, H, W) per forward pass: 64, of images over 64x64 pixels fewer."""
    return images_a_pass(image_shape)  # teachers answer on the CPU


def open_teacher(folder: Path, manifest: Manifest, batch_size: int | None = None) -> Teacher:
    """The teacher in a silo's folder, of the kind its manifest names.

    Args:
        folder: the silo's folder.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass; None: `default_batch_size`.

    Raises:
        ManifestError: weights and manifest disagree, or what the format needs is not installed.
    """
    load, together = FORMATS.get(manifest.kind).load, batch_size or default_batch_size(manifest.image_shape)
    return load(read_weights(folder, manifest), manifest, together)
