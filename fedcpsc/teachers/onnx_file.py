# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, read without running it: whether it is whole, and made whole where its weights lie beside it.

An ONNX model may name other files that hold its weights. A silo's weights file must be covered by one hash, so they are
folded in when a model is adopted, and refused wherever a silo opens its teacher. The names of those files come from the
model: only regular files in the model's own folder are read, through no symbolic link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fedcpsc.errors import ManifestError, explain

__all__ = ["check_whole", "folded", "parse", "with_one_output"]

_LARGEST = 2**31 - 1  # bytes of a protobuf message


def parse(data: bytes, name: str) -> Any:
    """The model as onnx.ModelProto; no path in it is followed.

    Args:
        data: content of the file.
        name: what the file is called in messages.

    Raises:
        ManifestError: where onnx is not installed, or this is no ONNX model.
    """
    try:
        import onnx  # noqa: PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        raise ManifestError(
            explain("kind", "onnx", "needs onnx and onnxruntime", "install them: pip install 'fedcpsc[onnx]'")
        ) from error
    try:
        model = onnx.ModelProto.FromString(data)  # unlike onnx.load, follows no path
    except Exception as error:  # protobuf's own class, of whichever of its implementations
        shown = f"is no ONNX model that can be run ({type(error).__name__})"
        raise ManifestError(explain("weights", name, shown, "export it again")) from error
    if not model.graph.node:
        raise ManifestError(explain("weights", name, "is no ONNX model that can be run", "export it again"))
    return model


def check_whole(model: Any, name: str) -> None:
    """Does nothing where the model holds all its weights itself.

    Raises:
        ManifestError: where it names other files for them.
    """
    elsewhere = sorted({_location(tensor) for tensor in _elsewhere(model)})
    if elsewhere:
        remedy = (
            "fold them into one file: torch.onnx.export(..., external_data=False), or"
            " onnx.save(onnx.load(path), path, save_as_external_data=False); and give the manifest its SHA-256"
        )
        shown = f"keeps weights in another file ({', '.join(elsewhere)[:100]}), which is not read"
        raise ManifestError(explain("weights", name, shown, remedy))


def folded(model: Any, folder: Path) -> list[str]:
    """Puts the weights that lie in other files of `folder` into the model.

    Args:
        model: onnx.ModelProto, changed in place.
        folder: folder of the model's file.

    Returns:
        The names of the files that were read.

    Raises:
        ManifestError: where such a file is missing, too short, outside the folder, or a symbolic link; or where the
            whole would be larger than one ONNX file can be.
    """
    tensors = list(_elsewhere(model))
    sizes = {name: _confined(folder, name).stat().st_size for name in {_location(tensor) for tensor in tensors}}
    ranges = [_range(tensor, sizes[_location(tensor)]) for tensor in tensors]
    if sum(length for _, length in ranges) > _LARGEST - model.ByteSize():
        shown = f"has {sum(sizes.values()) >> 20} MiB of weights beside it, and one ONNX file holds at most 2047"
        remedy = "export it with float16 weights, or bring it as a torch.export archive"
        raise ManifestError(explain("model", str(folder), shown, remedy))
    for tensor, (offset, length) in zip(tensors, ranges, strict=True):
        tensor.raw_data = _read(_confined(folder, _location(tensor)), offset, length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return sorted(sizes)


def with_one_output(model: Any, name: str) -> None:
    """Leaves only the output called `name` in the model's list of outputs; what computes it stays.

    Raises:
        ManifestError: where it has none of that name.
    """
    outputs = {value.name: value for value in model.graph.output}
    if name not in outputs:
        remedy = f"name one of {', '.join(map(repr, outputs))}"
        raise ManifestError(explain("output", name, "is no output of this model", remedy))
    kept = outputs[name]
    del model.graph.output[:]
    model.graph.output.append(kept)


def _tensors(message: Any) -> Iterator[Any]:
    """The tensors below a protobuf message, wherever in the model they stand."""
    if message.DESCRIPTOR.full_name == "onnx.TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                yield from _tensors(part)


def _elsewhere(model: Any) -> Iterator[Any]:
    """The tensors whose values lie in another file."""
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            yield tensor


def _location(tensor: Any) -> str:
    places = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return places[0] if len(places) == 1 else "which is not named"


def _confined(folder: Path, name: str) -> Path:
    """The path of a file that the model names, which lies in its folder.

    Raises:
        ManifestError: where it does not.
    """
    parts, remedy = PurePosixPath(name).parts, "put the model and the files that came with it into one folder"
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        shown = f"keeps weights in {name!r}, outside its own folder, where nothing is read"
        raise ManifestError(explain("model", str(folder), shown, remedy))
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            shown = f"keeps weights in {name!r}, and {path.name} is a symbolic link, which is not followed"
            raise ManifestError(explain("model", str(folder), shown, "copy the file itself there"))
    if not path.is_file():
        shown = f"keeps weights in the file {name!r}, which is not there"
        raise ManifestError(explain("model", str(folder), shown, f"{remedy}; torch writes model.onnx.data beside it"))
    return path


def _range(tensor: Any, size: int) -> tuple[int, int]:
    """Offset and length in bytes of a tensor's values in a file of `size` bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        shown = f"is too short for the tensor {tensor.name[:60]!r} that lies in it: it has {size} bytes"
        raise ManifestError(explain("weights", _location(tensor), shown, "copy it again, whole"))
    return offset, length


def _read(path: Path, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.pread(descriptor, length, offset) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        shown = f"cannot be read ({error.strerror})"
        raise ManifestError(explain("weights", str(path), shown, "check that this user may read it")) from error
    if len(data) != length:
        raise ManifestError(explain("weights", str(path), "changed while it was read", "try again"))
    return data
