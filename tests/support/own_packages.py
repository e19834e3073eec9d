# SPDX-License-Identifier: Apache-2.0
"""Packages of a user's own, installed for one test: a module, and what a package manager leaves beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, text: str, groups: Mapping[str, Mapping[str, str]]
) -> None:
    """Puts `module` with the source `text` on the path, its entry points announced as `{group: {name: address}}`."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {a}\n" for n, a in points.items()) for group, points in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(sys.modules, module, None)  # restored, so forgotten, after the test
    del sys.modules[module]
