# SPDX-License-Identifier: Apache-2.0
"""Initial weights from a seed of their own: torch draws them from its global stream, which is the caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]

_ONE_AT_A_TIME = threading.RLock()  # of several runs in one process: the global stream is one


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """In the block torch's global stream on the CPU begins from `seed`; after it, it is as it was.

    Args:
        seed: seed of the block's stream, in [0, 2**63).
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
        yield
