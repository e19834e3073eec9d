# SPDX-License-Identifier: Apache-2.0
"""State dicts in files: read as tensors alone, without running code, and freed of what wrappers add to their names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["PARALLEL", "NotAState", "read_pickled", "read_safetensors", "read_state_file", "unwrapped"]

PARALLEL = "module."
_WRAPPERS = (PARALLEL, "_orig_mod.", "model.", "net.", "network.")  # DataParallel, torch.compile, Lightning
_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02")  # a zip archive since torch 1.6, a bare pickle before
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as folders of the Hugging Face hub have them


class NotAState(Exception):
    """A file holds no state dict that can be used; says why, and what to do.

    Attributes:
        constraint: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, constraint: str, remedy: str) -> None:
        super().__init__(f"{constraint}; {remedy}")
        self.constraint = constraint
        self.remedy = remedy


def read_state_file(path: Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a file by name, and the file: in a folder of the Hugging Face hub that with the weights.

    Args:
        path: path of a safetensors file, of a state dict of torch.save, or of a folder with either.

    Raises:
        NotAState: it holds anything but tensors, or several state dicts.
        OSError: it cannot be read.
    """
    if path.is_dir():
        found = next((path / name for name in _IN_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise NotAState(f"is a folder without {' or '.join(_IN_FOLDER)}", "name the file of the weights")
        path = found
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(_TORCH_SAVE):
        state, _ = read_pickled(path, [])
    elif head[8:9] == b"{":
        state = read_safetensors(path)
    else:
        raise NotAState("is neither a safetensors file nor one of torch.save", "save the state dict as safetensors")
    return unwrapped(state, []), path


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        NotAState: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise NotAState(f"is a damaged safetensors file ({error})", "copy it again") from error


def read_pickled(path: Path, notes: list[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of torch.save by name, where it is tensors and plain containers.

    Args:
        path: path of the file.
        notes: sentences about what was left out, to which this may add one.

    Returns:
        The tensors, and what else a checkpoint holds beside their state dict, by its keys.

    Raises:
        NotAState: it is anything else: then nothing of it was run.
    """
    zipped = zipfile.is_zipfile(path)  # one of torch < 1.6 cannot be mapped into memory
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # of pickle's own class, which is not imported; or of whatever damage causes
        if type(error).__name__ == "UnpicklingError":
            raise NotAState(
                "holds more than tensors, such as a whole model: a pickle that runs code when it is read; not opened",
                "where it was made: torch.save(model.state_dict(), 'weights.pth'), or torch.onnx.export(model, ...)",
            ) from error
        shown = f"is a damaged file of torch.save ({str(error).partition(chr(10))[0][:100]})"
        raise NotAState(shown, "copy it again") from error
    return _flat(tree, notes)


def unwrapped(state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The same without the prefix that a wrapper gave to every name; a sentence about it is added to the notes."""
    while prefix := next((each for each in _WRAPPERS if state and all(key.startswith(each) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        notes.append(f"every name began with {prefix!r}, as a wrapper names them: it was taken off")
    return state


def _flat(tree: Any, notes: list[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The one state dict in what torch.save wrote, and what stands beside it.

    Raises:
        NotAState: there is none, or more than one.
    """
    if _is_state(tree):
        return dict(tree), {}
    inside = {str(key): value for key, value in tree.items() if _is_state(value)} if isinstance(tree, Mapping) else {}
    if len(inside) == 1:
        ((key, state),) = inside.items()
        notes.append(f"the state dict {key!r} of the checkpoint is used, the rest of it is left out")
        return dict(state), {str(other): value for other, value in tree.items() if str(other) != key}
    if not inside:
        shown = f"holds no state dict (it holds {type(tree).__name__})"
        raise NotAState(shown, "torch.save(model.state_dict(), 'weights.pth')")
    shown = f"holds several state dicts ({', '.join(inside)})"
    raise NotAState(shown, "save alone the one that answers: torch.save(that, path)")


def _is_state(tree: Any) -> bool:
    return (
        isinstance(tree, Mapping)
        and bool(tree)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in tree.items())
    )
