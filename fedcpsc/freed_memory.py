# SPDX-License-Identifier: Apache-2.0
"""Memory that a step frees stays with the process, where the next step takes it again.

glibc gives freed blocks of megabytes back to the system, which clears every page before it hands it out anew: feature
maps of a batch cost thousands of page faults a step, a tenth to a quarter of its time. No result depends on it.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["KEPT_MIB", "keep_freed_memory"]

KEPT_MIB = 256
"""Most mebibytes of freed memory that stay with a process."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST_BLOCK_MIB = 32  # glibc takes no higher threshold; larger blocks are always mapped, and given back


def keep_freed_memory() -> bool:
    """Tells glibc to keep up to `KEPT_MIB` of freed memory in this process; again has no further effect.

    Returns:
        Whether it was told: on other systems and other C libraries nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    set_option = library.mallopt
    set_option.argtypes, set_option.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    kept = set_option(_TRIM_THRESHOLD, KEPT_MIB * 2**20)
    return bool(kept and set_option(_MMAP_THRESHOLD, _LARGEST_BLOCK_MIB * 2**20))
