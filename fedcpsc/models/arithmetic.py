# SPDX-License-Identifier: Apache-2.0
"""How a GPU computes with float32 numbers, and how it chooses among its algorithms, for as long as a run lasts.

torch lets cuDNN's convolutions round float32 factors to 10 bits of mantissa (TF32) unless it is told not to: then
`precision: float32` is not what it says. These settings are the whole process's, so they are given back as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

__all__ = ["gpu_arithmetic"]

_Settings: TypeAlias = tuple[str, str, str, bool]
"""Format of float32 factors in cuDNN's convolutions, its recurrent networks and cuBLAS's products; whether cuDNN times
its algorithms."""

_LOCK = threading.Lock()
_before: list[_Settings] = []  # one for each block that is entered: the first is what all of them found


@contextmanager
def gpu_arithmetic(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """In the block float32 is float32, and cuDNN times its algorithms once for each shape; on a CPU nothing changes.

    Of blocks within one another, or in several threads, the first one's `tf32` holds until all are left.

    Args:
        device: device that is computed on.
        tf32: whether factors of products and convolutions may be rounded to TF32 all the same.
    """
    if device.type != "cuda":
        yield
        return
    with _LOCK:
        _before.append(_settings())
        if len(_before) == 1:
            own = "tf32" if tf32 else "ieee"
            _set((own, own, own, True))
    try:
        yield
    finally:
        with _LOCK:
            if len(_before) == 1:
                _set(_before[0])
            _before.pop()


def _settings() -> _Settings:
    cudnn: Any = torch.backends.cudnn
    return (
        cudnn.conv.fp32_precision,
        cudnn.rnn.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
        cudnn.benchmark,
    )


def _set(settings: _Settings) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul, cudnn.benchmark = settings
    torch.backends.cuda.matmul.fp32_precision = matmul
