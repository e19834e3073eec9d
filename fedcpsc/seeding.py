# SPDX-License-Identifier: Apache-2.0
"""Named, independent random streams from one seed.

Every consumer derives its own stream by name, so that adding one never shifts another. These streams serve training
and synthesis; privacy noise never comes from here (`fedcpsc.privacy.noise` draws from the operating system).
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive_seed", "numpy_generator"]


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the stream called `names`, e.g. `derive_seed(1, "silo", 3)`."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream called `names`."""
    return np.random.default_rng(derive_seed(seed, *names))
