# SPDX-License-Identifier: Apache-2.0
"""The folder that `flwr run` makes its app bundle from: the two apps, the library's source, the run's configuration.

It is staged afresh for each run, so that a run needs neither a checkout nor one whose folder has a name Flower accepts.

In a checkout, and in Flower's copy of an app, the two apps `clients` and `server` lie beside the package. A wheel must
not claim such common names for import: it carries them as files in `fedcpsc/_apps/`, which nothing imports, and they
become `clients` and `server` only inside the app.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.version import project_file

__all__ = ["CONFIG_IN_APP", "stage_app"]

CONFIG_IN_APP = "configs/run.yaml"
_PACKAGE = Path(__file__).resolve().parent.parent
_CARRIED = "_apps"  # folder of the apps in an installed package
_APPS = ("clients", "server")


def stage_app(folder: Path, config: Path) -> None:
    """Fills `folder` with the app.

    Args:
        folder: folder to make; its name becomes the app's and consists of letters, digits and hyphens.
        config: YAML file of the run; the app holds it as `CONFIG_IN_APP`.

    Raises:
        RunError: the installation lacks one of the apps.
    """
    sources = {"fedcpsc": _PACKAGE, **{name: _source_of(name) for name in _APPS}}
    for name, source in sources.items():
        shutil.copytree(source, folder / name, ignore=_all_but_python)
    shutil.copyfile(project_file(), folder / "pyproject.toml")
    target = folder / CONFIG_IN_APP
    target.parent.mkdir()
    shutil.copyfile(config, target)


def _source_of(app: str) -> Path:
    for folder in (_PACKAGE / _CARRIED, _PACKAGE.parent):
        if (folder / app / "app.py").is_file():
            return folder / app
    raise RunError(explain("app", app, "is missing from the installation", "install fedcpsc again"))


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == _CARRIED or not (name.endswith(".py") or _is_folder(folder, name))]


def _is_folder(folder: str, name: str) -> bool:
    return name != "__pycache__" and os.path.isdir(f"{folder}/{name}")
