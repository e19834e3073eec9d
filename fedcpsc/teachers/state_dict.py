# SPDX-License-Identifier: Apache-2.0
"""State dicts: read without running code, freed of what wrappers add to their names, written as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from fedcpsc.errors import ManifestError, explain
from fedcpsc.models.likeness import miscast
from fedcpsc.models.state_file import PARALLEL, NotAState, read_pickled, read_safetensors, unwrapped
from fedcpsc.teachers.content import Content

__all__ = [
    "State",
    "as_safetensors",
    "check_numbers",
    "metadata_of",
    "misfit",
    "read_checkpoint",
    "read_state",
    "tensors_of",
    "with_metadata",
]

State = Mapping[str, Tensor]

_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02")  # a zip archive since torch 1.6, a bare pickle before


def read_state(path: Path, content: Content, *, wrapped: bool = True) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by name, and sentences about what was changed; arguments as for `read_checkpoint`.

    Raises:
        ManifestError: where it holds anything but tensors, or several state dicts.
    """
    state, notes, _ = read_checkpoint(path, content, wrapped=wrapped)
    return state, notes


def read_checkpoint(
    path: Path, content: Content, *, wrapped: bool = True
) -> tuple[dict[str, Tensor], list[str], dict[str, Any]]:
    """The tensors of a file by name, sentences about what was changed, and what else the file says, by its keys.

    Args:
        path: path of the file.
        content: SAFETENSORS or TORCH_SAVE.
        wrapped: whether a prefix that every name has is taken off.

    Raises:
        ManifestError: where it holds anything but tensors, or several state dicts.
    """
    notes: list[str] = []
    beside: dict[str, Any]
    try:
        if content is Content.SAFETENSORS:
            state = read_safetensors(path)
            with safe_open(path, framework="pt") as file:
                beside = dict(file.metadata() or {})
        else:
            state, beside = read_pickled(path, notes)
            notes.append("the file of torch.save was read as tensors alone, and is kept as safetensors")
    except NotAState as error:
        raise ManifestError(explain("model", str(path), error.constraint, error.remedy)) from error
    return (unwrapped(state, notes) if wrapped else state), notes, beside


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
    if found and all(key.startswith(PARALLEL) for key in found):
        remedy = f"save model.module.state_dict(), or drop the first {len(PARALLEL)} characters of each key"
        shown = f"every key begins with {PARALLEL!r}, as nn.DataParallel names them"
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


def check_numbers(found: State, wanted: State, name: str) -> None:
    """Does nothing where every weight is of floating-point numbers; counters may be whole ones.

    Args:
        found: tensors of the file by name.
        wanted: tensors of the network by name.
        name: what the file is called in messages.

    Raises:
        ManifestError: where one is not: torch would take its numbers as they stand, without a scale.
    """
    if constraint := miscast(found, wanted):
        remedy = "save the weights in float32 before they are quantised; or export the model to ONNX with its scales"
        raise ManifestError(explain("weights", name, constraint, remedy))


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
