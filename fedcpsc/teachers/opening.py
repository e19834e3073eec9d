# SPDX-License-Identifier: Apache-2.0
"""Opening the teacher of a silo's folder by the kind that its manifest names."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.errors import ConfigError, explain
from fedcpsc.large_images import images_a_pass
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.manifest import Manifest, read_weights
from fedcpsc.teachers.protocol import Movable, Teacher

__all__ = ["default_batch_size", "open_teacher"]


def default_batch_size(image_shape: tuple[int, int, int], device: str = "cpu") -> int:
    """Number of images (C, H, W) per forward pass: 64, of images over 64x64 pixels fewer; on a GPU 512."""
    return images_a_pass(image_shape, on_gpu=device != "cpu")


def open_teacher(folder: Path, manifest: Manifest, batch_size: int | None = None, device: str = "cpu") -> Teacher:
    """The teacher in a silo's folder, of the kind its manifest names.

    Args:
        folder: the silo's folder.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass; None: `default_batch_size`.
        device: device that the network answers on, `cpu` or `cuda`: the policy's `service.device`.

    Raises:
        ManifestError: weights and manifest disagree, or what the format needs is not installed.
        ConfigError: the device is a GPU, and torch sees none, or teachers of this kind answer on the CPU alone.
    """
    together = batch_size or default_batch_size(manifest.image_shape, device)
    load = FORMATS.get(manifest.kind).load
    teacher = load(read_weights(folder, manifest), manifest, together)
    if device != "cpu" and not (isinstance(teacher, Movable) and teacher.answer_on(device)):
        constraint = f"a teacher of kind {manifest.kind} answers on the CPU alone"
        remedy = (
            "set service.device: cpu in policy.yaml; torch, torchvision, timm and huggingface teachers can use a GPU"
        )
        raise ConfigError(explain("service.device", device, constraint, remedy))
    return teacher
