# SPDX-License-Identifier: Apache-2.0
"""A device without a device: the engine runs on it, and every wait for it is counted.

Tensors of torch's `meta` device have shapes and no numbers. Autograd runs over them, which it refuses to do over fake
CUDA tensors where torch finds no driver. Whatever would read a number from the device gives 0 or 1 in its place, and is
counted: on a GPU the program would stop there until the device has caught up.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["PRETENDED", "Waits", "pretended_gpu"]

PRETENDED = torch.device("meta")
_UNKNOWN_SIZE = ("nonzero", "masked_select", "unique_dim", "_unique2", "bincount", "equal", "repeat_interleave")


class Waits(TorchDispatchMode):
    """Counts what makes the program wait for the device, and refuses operations on two devices at once.

    Attributes:
        counts: number of waits by kind: `scalar` (item, bool, a branch on a tensor), `download`, `upload` (from memory
            that is not pinned), `unknown size` (nonzero, a boolean mask as an index, bincount, equal).
        where: place in fedcpsc of each wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.where: Counter[str] = Counter()
        self._pinned: list[Tensor] = []

    @property
    def total(self) -> int:
        """Number of all waits."""
        return self.counts.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if torch.is_inference_mode_enabled():  # operations then arrive whole
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        tensors = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_device = any(tensor.device == PRETENDED for tensor in tensors)
        if name == "is_pinned":
            return self._is_pinned(args[0])
        if name in ("_pin_memory", "pin_memory"):
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if name == "_local_scalar_dense" and on_device:
            self._count("scalar")
            return {torch.bool: True, torch.int64: 1}.get(args[0].dtype, 1.0)
        if name in _UNKNOWN_SIZE and on_device:
            self._count("unknown size")
            return self._of_unknown_size(name, args)
        if name in ("_to_copy", "copy_", "_copy_from"):
            return self._copied(func, name, args, kwargs)
        if name in ("index", "index_put_", "_index_put_impl_", "_unsafe_index") and on_device:
            self._check_indices(args[1])
        elif on_device:
            others = [tensor for tensor in tensors if tensor.device != PRETENDED and tensor.ndim > 0]
            assert not others, f"{func} takes tensors of two devices: {[(t.device, tuple(t.shape)) for t in tensors]}"
        return func(*args, **kwargs)

    def _copied(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        source = args[0] if name == "_to_copy" else args[1]
        target = torch.device(kwargs.get("device") or source.device) if name == "_to_copy" else args[0].device
        direct = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
        if source.device == PRETENDED and target != PRETENDED:
            if not direct:  # else its reader waits: `downloaded` does, once for several tensors
                self._count("download")
            shape = source.shape if name == "_to_copy" else args[0].shape
            return torch.zeros(shape, dtype=kwargs.get("dtype") or source.dtype)
        if (
            source.device != PRETENDED
            and target == PRETENDED
            and source.numel() > 1
            and not (direct and self._is_pinned(source))
        ):
            self._count("upload")
        return func(*args, **kwargs)

    def _check_indices(self, indices: Any) -> None:
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self._count("unknown size")
            elif index is not None and index.device != PRETENDED:
                self._count("upload")

    def _of_unknown_size(self, name: str, args: Any) -> Any:
        if name == "equal":
            return True
        if name == "nonzero":
            return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64, device=PRETENDED)
        raise NotImplementedError(f"{name} on a device is no part of the engine: its result's size must be waited for")

    def _is_pinned(self, tensor: Tensor) -> bool:
        return any(tensor is pinned or tensor.data_ptr() == pinned.data_ptr() for pinned in self._pinned)

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        place = next(frame for frame in reversed(traceback.extract_stack()) if "/fedcpsc/" in frame.filename)
        self.where[f"{kind}: {place.filename.split('/fedcpsc/')[-1]}:{place.lineno} {place.line}"] += 1


class _Stream(torch.Generator):
    """A random generator of the CPU that says it is the device's."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Stream:
        made = super().__new__(cls)
        made._device = torch.device(device)
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self._device

    def manual_seed(self, seed: int) -> _Stream:
        super().manual_seed(seed)
        return self


@contextmanager
def pretended_gpu() -> Iterator[Waits]:
    """In the block, `PRETENDED` is a device with random streams and autocast; gives the count of waits for it."""
    autocast = torch.autocast

    def no_autocast_there(device: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device == PRETENDED.type else autocast(device, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Stream)
        patch.setattr(torch, "autocast", no_autocast_there)
        with Waits() as waits:
            yield waits
