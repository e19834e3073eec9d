# SPDX-License-Identifier: Apache-2.0
"""State dicts: read without running code, freed of what wrappers add to their names, written as safetensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.content import Content

__all__ = ["State", "as_safetensors", "metadata_of", "misfit", "read_state", "tensors_of", "with_metadata"]

State = Mapping[str, Tensor]

_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02")  # a zip archive since torch 1.6, a bare pickle before
_PARALLEL = "module."
_WRAPPERS = (_PARALLEL, "_orig_mod.", "model.", "net.", "network.")  # DataParallel, torch.compile, Lightning


def read_state(path: Path, content: Content, *, wrapped: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by name, and sentences about what was changed.

    Args:
        path: path of the file.
        content: SAFETENSORS or TORCH_SAVE.
        wrapped: whether a prefix that every name has is taken off.

    Raises:
        ManifestError: where it holds anything but tensors, or several state dicts.
    """
    notes: list[str] = []
    if content is Content.SAFETENSORS:
        try:
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            shown = f"is a damaged safetensors file ({error})"
            raise ManifestError(explain("model", str(path), shown, "copy it again")) from error
    else:
        state = _flat(_unpickled(path), path, notes)
        notes.append("the file of torch.save was read as tensors alone, and is kept as safetensors")
    return (_unwrapped(state, notes) if wrapped else state), notes


def as_safetensors(state: State, metadata: Mapping[str, str] | None = None) -> bytes:
    """The file's content; tensors that share their values are written once each."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone().contiguous() if place in seen else tensor.contiguous()
        seen.add(place)
    return save_tensors(plain, dict(metadata) if metadata else None)


def tensors_of(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        data: content of the file.
        name: what the file is called in messages.

    Raises:
        ManifestError: where it is another kind of file.
    """
    try:
        return load_tensors(data)
    except SafetensorError as error:
        if data.startswith(_TORCH_SAVE):
            remedy = (
                "convert it: state = torch.load('model.pth', map_location='cpu', weights_only=True);"
                " safetensors.torch.save_file(state, 'teacher.safetensors'); and give the manifest its SHA-256"
            )
            shown = "was written by torch.save, a pickle, which may run code when it is read"
            raise ManifestError(explain("weights", name, shown, remedy)) from error
        raise ManifestError(
            explain("weights", name, f"is no safetensors file ({error})", "save the state dict as safetensors")
        ) from error


def misfit(found: State, wanted: State, architecture: str, name: str) -> ManifestError:
    """Says how a state dict that could not be loaded differs from the architecture's."""
    if found and all(key.startswith(_PARALLEL) for key in found):
        remedy = f"save model.module.state_dict(), or drop the first {len(_PARALLEL)} characters of each key"
        shown = f"every key begins with {_PARALLEL!r}, as nn.DataParallel names them"
        return ManifestError(explain("weights", name, shown, remedy))
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if not missing and not foreign:
        key = next((key for key in wanted if wanted[key].shape != found[key].shape), "")
        shapes = f" ({key[:60]}: {list(found[key].shape)} for {list(wanted[key].shape)})" if key else ""
        shown = f"do not fit {architecture}: a tensor has another shape{shapes}"
        return ManifestError(explain("weights", name, shown, "check width, classes and image_shape"))
    absent, others = f"{len(missing)} tensors are missing{_few(missing)}", f"{len(foreign)} are foreign{_few(foreign)}"
    remedy = "save the state dict of models.registry.build_classifier(...), or name the right architecture"
    return ManifestError(explain("weights", name, f"do not fit {architecture}: {absent}, {others}", remedy))


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, where it is tensors and plain containers.

    Raises:
        ManifestError: where it is anything else: then nothing of it was run.
    """
    zipped = zipfile.is_zipfile(path)  # one of torch < 1.6 cannot be mapped into memory
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # of pickle's own class, which is not imported; or of whatever damage causes
        if type(error).__name__ == "UnpicklingError":
            shown = (
                "holds more than tensors, such as a whole model: a pickle that runs code when it is read; not opened"
            )
            remedy = (
                "where it was made: torch.save(model.state_dict(), 'weights.pth'), or torch.onnx.export(model, ...)"
            )
            raise ManifestError(explain("model", str(path), shown, remedy)) from error
        shown = f"is a damaged file of torch.save ({str(error).partition(chr(10))[0][:100]})"
        raise ManifestError(explain("model", str(path), shown, "copy it again")) from error


def _flat(tree: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    """The one state dict in what torch.save wrote.

    Raises:
        ManifestError: where there is none, or more than one.
    """
    if _is_state(tree):
        return dict(tree)
    inside = {str(key): value for key, value in tree.items() if _is_state(value)} if isinstance(tree, Mapping) else {}
    if len(inside) == 1:
        ((key, state),) = inside.items()
        notes.append(f"the state dict {key!r} of the checkpoint is used, the rest of it is left out")
        return dict(state)
    if not inside:
        shown = f"holds no state dict (it holds {type(tree).__name__})"
        raise ManifestError(explain("model", str(path), shown, "torch.save(model.state_dict(), 'weights.pth')"))
    shown = f"holds several state dicts ({', '.join(inside)})"
    raise ManifestError(explain("model", str(path), shown, "save alone the one that answers: torch.save(that, path)"))


def _is_state(tree: Any) -> bool:
    return (
        isinstance(tree, Mapping)
        and bool(tree)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in tree.items())
    )


def _unwrapped(state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The same without the prefix that a wrapper gave to every name."""
    while prefix := next((each for each in _WRAPPERS if state and all(key.startswith(each) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        notes.append(f"every name began with {prefix!r}, as a wrapper names them: it was taken off")
    return state


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with other metadata; its tensors are left as they are.

    Raises:
        ManifestError: where it is no safetensors file.
    """
    header = _header(data)
    if header is None:
        raise ManifestError(explain("model", "model.safetensors", "is a damaged safetensors file", "copy it again"))
    size = int.from_bytes(data[:8], "little")
    new = json.dumps(header | {"__metadata__": dict(metadata)}, separators=(",", ":")).encode()
    new += b" " * (-len(new) % 8)  # tensors begin at a multiple of 8 bytes
    return b"".join((len(new).to_bytes(8, "little"), new, memoryview(data)[8 + size :]))


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata in a safetensors file's header; empty where it has none or is no such file."""
    found = (_header(data) or {}).get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def _header(data: bytes) -> dict[str, Any] | None:
    """The header of a safetensors file; None where it has none."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _few(keys: list[str]) -> str:
    return f" ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})" if keys else ""
