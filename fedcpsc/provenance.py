"""What every result carries so that it can be repeated: versions, and the commit of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["commit", "versions"]


def versions() -> dict[str, str]:
    """Versions of Python and of what a run stands on."""
    found = {"python": platform.python_version()}
    for package in ("fedcpsc", "torch", "torchvision", "flwr", "opacus", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
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
