# SPDX-License-Identifier: Apache-2.0
"""The one place of the version: `[project]` in pyproject.toml, where Flower reads an app's version too.

An installed package carries that file along; a checkout and Flower's copy of an app have it beside the package.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["project_file", "version"]

_PACKAGE = Path(__file__).resolve().parent


def project_file() -> Path:
    """The pyproject.toml that this very copy of the package was made from."""
    installed = _PACKAGE / "launch" / "pyproject.toml"
    return installed if installed.exists() else _PACKAGE.parent / "pyproject.toml"


def version() -> str:
    """The version of this very copy of the package, e.g. 0.1.0."""
    import tomllib  # noqa: PLC0415 - few processes ask

    return str(tomllib.loads(project_file().read_text(encoding="utf-8"))["project"]["version"])
