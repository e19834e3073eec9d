# SPDX-License-Identifier: Apache-2.0
"""What a model file is, by its content: its first bytes and, for an archive, its members. Nothing is unpickled.

The name of a file decides nothing: `model.pt` may be a state dict, a TorchScript program or a `torch.export` archive.
"""

from __future__ import annotations

import zipfile
from enum import StrEnum
from pathlib import Path

from fedcpsc.errors import ManifestError, explain

__all__ = ["Content", "content_of"]


class Content(StrEnum):
    """Content of a model's file or folder, as far as a teacher can be made of it."""

    ONNX = "an ONNX model"
    SAFETENSORS = "a safetensors file"
    TORCH_SAVE = "a file of torch.save"
    TORCH_EXPORT = "a torch.export archive"
    TORCHSCRIPT = "a TorchScript archive"
    HUGGING_FACE = "a Hugging Face folder"


_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save before torch 1.6
_TO_ONNX = "export the model to ONNX where it was made"
_FOREIGN = (  # (offset, bytes, what begins so, what to do)
    (0, b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "fetch it: git lfs pull"),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes", f"{_TO_ONNX}: tf2onnx.convert.from_keras(model)"),
    (4, b"TFL3", "is a TensorFlow Lite model", f"{_TO_ONNX}: python -m tf2onnx.convert --tflite model.tflite"),
    (4, b"ORTM", "is a model in onnxruntime's own format", "bring the .onnx file that it was made of"),
    (0, b"GGUF", "is a GGUF file, a language model's weights", "bring a classifier of images"),
    (0, b"\x1f\x8b", "is a compressed archive", "unpack it, and name the model in it"),
    (257, b"ustar", "is a tar archive", "unpack it, and name the model in it"),
    (0, b"\x93NUMPY", "is an array of NumPy", "bring the whole model, not one of its tensors"),
)
_PICKLE = (
    "is a pickle, which runs code when it is read, so it is not opened",
    "save weights alone where it was made: torch.save(model.state_dict(), 'weights.pth'), or safetensors; for a model "
    "that is no network of torch, export ONNX (skl2onnx for scikit-learn), or name an entry point that reads it",
)


def content_of(path: Path) -> Content:
    """What lies at `path`.

    Raises:
        ManifestError: where nothing lies there, it cannot be read, or no teacher format can be made of it; the message
            says what it is as far as that is known, and what to do.
    """
    try:
        if path.is_dir():
            return _folder(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        remedy = "check the path, and that this user may read it"
        raise ManifestError(explain("model", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    if not head:
        raise ManifestError(explain("model", str(path), "is an empty file", "copy or export it again"))
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith(_TORCH_LEGACY):
        return Content.TORCH_SAVE
    for offset, magic, what, remedy in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise ManifestError(explain("model", str(path), what, remedy))
    if head[0] == 0x80 and 2 <= head[1] <= 5:  # a pickle's PROTO opcode and its number
        raise ManifestError(explain("model", str(path), *_PICKLE))
    if 2 <= int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{":
        return Content.SAFETENSORS
    if head[0] == 0x08 and size > 16:  # field 1 of a ModelProto, its IR version
        return Content.ONNX
    known = "ONNX, safetensors, torch.save of a state dict, torch.export, TorchScript, a Hugging Face folder"
    raise ManifestError(
        explain("model", str(path), f"begins like no format that is known ({known})", f"copy it again, or {_TO_ONNX}")
    )


def _archive(path: Path) -> Content:
    """What a zip archive holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        remedy = "it was cut off or damaged: copy it again"
        raise ManifestError(explain("model", str(path), f"is no whole zip archive ({error})", remedy)) from error
    members = {name.partition("/")[2] or name for name in names}
    if "serialized_exported_program.json" in names or "archive_format" in members or "models/model.json" in members:
        return Content.TORCH_EXPORT
    if "data.pkl" in members:
        scripted = "constants.pkl" in members and any(name.startswith("code/") for name in members)
        return Content.TORCHSCRIPT if scripted else Content.TORCH_SAVE
    if "model.weights.h5" in names:
        raise ManifestError(explain("model", str(path), "is a Keras model", f"{_TO_ONNX}: model.export(format='onnx')"))
    if names and all(name.endswith(".npy") for name in names):
        raise ManifestError(explain("model", str(path), "holds arrays of NumPy (.npz)", _TO_ONNX))
    found = ", ".join(names[:3]) or "nothing"
    raise ManifestError(
        explain("model", str(path), f"is a zip archive with no model in it that is known ({found})", "unpack it")
    )


def _folder(path: Path) -> Content:
    """What a folder holds."""
    names = sorted(child.name for child in path.iterdir())
    models = [name for name in names if name.endswith((".onnx", ".pt2", ".pt", ".pth", ".safetensors"))]
    hub = any(name.startswith(("model", "pytorch_model")) and name.endswith((".safetensors", ".bin")) for name in names)
    if "config.json" in names and (hub or not models):
        return Content.HUGGING_FACE
    if not names:
        raise ManifestError(explain("model", str(path), "is an empty folder", "name the model's file, or fill it"))
    if "saved_model.pb" in names:
        remedy = f"{_TO_ONNX}: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
        raise ManifestError(explain("model", str(path), "is a TensorFlow SavedModel", remedy))
    found = f"holds {', '.join(models[:3])}" if models else f"holds {', '.join(names[:3])}"
    remedy = f"name the file: {path / models[0]}" if models else "name the model's file"
    lacking = "model.safetensors and pytorch_model.bin" if "config.json" in names else "config.json"
    shown = f"is a folder without {lacking}, so no Hugging Face model; it {found}"
    raise ManifestError(explain("model", str(path), shown, remedy))
