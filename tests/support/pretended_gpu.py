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
from torch.utils._pytree import tree_leaves

__all__ = ["PRETENDED", "Waits", "pretended_gpu"]

PRETENDED = torch.device("meta")
_COPIES = ("_to_copy", "copy_", "_copy_from")
_INDEXED = ("index", "index_put_", "_index_put_impl_", "_unsafe_index")
_OF_UNKNOWN_SIZE = ("bincount", "equal", "masked_select", "nonzero", "repeat_interleave", "unique_dim", "_unique2")


class Waits(TorchDispatchMode):
    """Counts what makes the program wait for the device, and refuses operations on two devices at once.

    Attributes:
        counts: number of waits by kind: `scalar` (item, bool, a branch on a tensor), `download`, `upload` (from memory
            that is not pinned), `size` (nonzero, a boolean mask as an index, bincount, equal: the result's size or
            value must be known before the program goes on).
        where: number of waits by kind and line of fedcpsc.
        uploads: shape of each tensor that was uploaded without a wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.where: Counter[str] = Counter()
        self.uploads: list[tuple[int, ...]] = []
        self._pinned: set[int] = set()
        self._held: list[Tensor] = []  # so that no other tensor gets a pinned one's address

    @property
    def total(self) -> int:
        """Number of all waits since the last `forget`."""
        return self.counts.total()

    def forget(self) -> None:
        """Begins to count anew."""
        self.counts.clear()
        self.where.clear()
        self.uploads.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if torch.is_inference_mode_enabled():  # operations that consist of others then arrive whole
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if name == "is_pinned":
            return args[0].data_ptr() in self._pinned
        if name == "_pin_memory":
            return self._pin(args[0])
        if name in _COPIES:
            return self._copy(func, name, args, kwargs)
        if any(tensor.device == PRETENDED for tensor in tensors):
            return self._on_device(func, name, args, kwargs, tensors)
        return func(*args, **kwargs)

    def _on_device(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        if name == "_local_scalar_dense":
            self._count("scalar")
            return {torch.bool: True, torch.int64: 1}.get(args[0].dtype, 1.0)
        if name in _OF_UNKNOWN_SIZE:
            self._count("size")
            assert name in ("equal", "nonzero"), f"{func} has no place in the engine: its result's size is waited for"
            return name == "equal" or torch.zeros(len(args[0]), args[0].ndim, dtype=torch.int64, device=PRETENDED)
        if name in _INDEXED:
            indices = [self._index(index) for index in args[1]]
            return func(args[0], indices, *args[2:], **kwargs)
        others = [tensor for tensor in tensors if tensor.device != PRETENDED and tensor.ndim > 0]
        assert not others, f"{func} takes tensors of two devices: {[(t.device, tuple(t.shape)) for t in tensors]}"
        return func(*args, **kwargs)

    def _index(self, index: Tensor | None) -> Tensor | None:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            self._count("size")
            assert index.ndim == 1, "a mask of several dimensions has no place in the engine"
            return torch.zeros(len(index), dtype=torch.int64, device=PRETENDED)
        if index is not None and index.device != PRETENDED:
            self._count("upload")
        return index

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        source, into = (args[0], None) if name == "_to_copy" else (args[1], args[0])
        target = torch.device(kwargs.get("device") or source.device) if into is None else into.device
        queued = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        if source.device == PRETENDED and target != PRETENDED:
            if not queued:  # what is queued is waited for by whoever reads it, see `fedcpsc.transfers.downloaded`
                self._count("download")
            shape, dtype = (source.shape, source.dtype) if into is None else (into.shape, into.dtype)
            return torch.zeros(shape, dtype=kwargs.get("dtype") or dtype)
        if source.device != PRETENDED and target == PRETENDED:
            if queued and source.data_ptr() in self._pinned:
                self.uploads.append(tuple(source.shape))
            elif source.numel() > 1:
                self._count("upload")
        return func(*args, **kwargs)

    def _pin(self, tensor: Tensor) -> Tensor:
        self._held.append(tensor.clone())
        self._pinned.add(self._held[-1].data_ptr())
        return self._held[-1]

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        frames = [frame for frame in traceback.extract_stack() if "/fedcpsc/" in frame.filename]
        for frame in frames[-1:]:
            self.where[f"{kind}: {frame.filename.rpartition('/fedcpsc/')[2]}:{frame.lineno} {frame.line}"] += 1


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
