# SPDX-License-Identifier: Apache-2.0
"""A while in which torch's global streams are one's own: initial weights and dropout draw from no other.

These streams are the caller's, and one for all threads: they are given back as they were, and of several runs in one
process one at a time has them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """In the block torch's global streams begin from `seed`; after it, they are as they were.

    Args:
        seed: seed of the streams, in [0, 2**63).
        device: device whose stream is meant beside the CPU's; None for the CPU's alone.
    """
    on_gpu = [device] if device is not None and device.type == "cuda" else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=on_gpu):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every CUDA generator too
        if on_gpu:
            with torch.cuda.device(on_gpu[0]):
                torch.cuda.manual_seed(seed)
        yield
