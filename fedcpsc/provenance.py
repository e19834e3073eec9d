# SPDX-License-Identifier: Apache-2.0
"""What every result carries: versions and the commit of the source, to repeat it, and the memory it took."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from fedcpsc.version import version

__all__ = ["commit", "peak_memory_mib", "versions"]


def versions(*besides: str) -> dict[str, str]:
    """Versions of Python, of what every run stands on, and of the packages named besides."""
    found = {"python": platform.python_version(), "fedcpsc": version()}
    for package in ("torch", "torchvision", "flwr", "opacus", "numpy", *besides):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """The commit of the source tree this package lies in; None where it is installed without one.

    In Flower the package runs from a copy in an app bundle: `$FEDCPSC_SOURCE` then names the folder it was copied from.
    """
    here = os.environ.get("FEDCPSC_SOURCE") or Path(__file__).resolve().parent
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None


def peak_memory_mib() -> float | None:
    """The most memory this process has ever had resident, in MiB, mapped pages of files counted in; None where the
    system does not report it (only Linux does; `getrusage` there counts what the parent had before the start).
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024
