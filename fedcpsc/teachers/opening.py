"""Opening the teacher of a silo's folder by the kind that its manifest names."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.protocol import Teacher

__all__ = ["open_teacher"]


def open_teacher(folder: Path, manifest: Manifest, batch_size: int = 500) -> Teacher:
    """The teacher in a silo's folder, of the kind its manifest names.

    Args:
        folder: the silo's.
        manifest: of the teacher.
        batch_size: images per forward pass.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    # imported where used: an ONNX silo needs no torch, a torch silo no onnxruntime
    if manifest.kind == "onnx":
        from fedcpsc.teachers.onnx_teacher import open_onnx  # noqa: PLC0415

        return open_onnx(folder, manifest, batch_size)
    if manifest.kind == "python":
        from fedcpsc.teachers.python_teacher import open_python  # noqa: PLC0415

        return open_python(folder, manifest)
    if manifest.kind == "shards":
        from fedcpsc.teachers.shard_teacher import open_shards  # noqa: PLC0415

        return open_shards(folder, manifest, batch_size)
    from fedcpsc.teachers.torch_teacher import open_torch  # noqa: PLC0415

    return open_torch(folder, manifest, batch_size)
