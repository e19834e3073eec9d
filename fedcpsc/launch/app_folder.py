"""The folder that `flwr run` makes its app bundle from: the two apps, the library's source, the run's configuration.

It is staged afresh for each run, so that a run needs neither a checkout nor one whose folder has a name Flower accepts.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.version import project_file

__all__ = ["CONFIG_IN_APP", "stage_app"]

CONFIG_IN_APP = "configs/run.yaml"
_PACKAGES = ("fedcpsc", "clients", "server")


def stage_app(folder: Path, config: Path) -> None:
    """Fills `folder` with the app.

    Args:
        folder: made here; its name becomes the app's and is letters, digits and hyphens.
        config: the run's YAML; lies in the app as `CONFIG_IN_APP`.

    Raises:
        RunError: the installation lacks one of the apps.
    """
    packages = {name: _source_of(name) for name in _PACKAGES}
    for name, source in packages.items():
        shutil.copytree(source, folder / name, ignore=_all_but_python)
    shutil.copyfile(project_file(), folder / "pyproject.toml")
    target = folder / CONFIG_IN_APP
    target.parent.mkdir()
    shutil.copyfile(config, target)


def _source_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(explain("package", package, "is not installed", "install fedcpsc again"))
    return Path(next(iter(spec.submodule_search_locations)))


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    return [n for n in names if not n.endswith(".py") and (n == "__pycache__" or not os.path.isdir(f"{folder}/{n}"))]
