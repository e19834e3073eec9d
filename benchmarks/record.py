"""What every figure carries: versions, commit, machine."""

from __future__ import annotations

import os
import platform
from typing import Any

from fedcpsc.distillation.outcome import commit, versions


def provenance() -> dict[str, Any]:
    """Versions, commit and machine of a measurement."""
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
    }
