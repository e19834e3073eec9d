# SPDX-License-Identifier: Apache-2.0
import shutil
import tomllib
from pathlib import Path

import pytest

from fedcpsc.errors import RunError
from fedcpsc.launch import app_folder
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app

ROOT = Path(__file__).parents[2]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_app_holds_source_and_configuration_and_nothing_else(tmp_path):
    config = tmp_path / "my run.yaml"
    config.write_text("seed: 5\n")
    stage_app(tmp_path / "fedcpsc", config)
    files = [path.relative_to(tmp_path / "fedcpsc") for path in (tmp_path / "fedcpsc").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".toml", ".yaml"}
    assert (tmp_path / "fedcpsc" / CONFIG_IN_APP).read_text() == "seed: 5\n"
    components = tomllib.loads((tmp_path / "fedcpsc/pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    for reference in components.values():
        module = reference.partition(":")[0].replace(".", "/")
        assert (tmp_path / "fedcpsc" / f"{module}.py").exists()


def test_an_installed_package_makes_the_same_app_as_a_checkout(tmp_path, monkeypatch):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    wheel, installed = settings["targets"]["wheel"], tmp_path / "site-packages"
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, installed / package)
    for source, place in wheel["force-include"].items():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
        copy(ROOT / source, installed / place)
    config = tmp_path / "run.yaml"
    config.write_text("seed: 5\n")
    stage_app(tmp_path / "of-checkout", config)
    monkeypatch.setattr(app_folder, "_PACKAGE", installed / "fedcpsc")
    stage_app(tmp_path / "of-wheel", config)
    assert files_of(tmp_path / "of-wheel") == files_of(tmp_path / "of-checkout")


def test_an_installation_without_an_app_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(app_folder, "_PACKAGE", tmp_path / "fedcpsc")
    with pytest.raises(RunError, match=r"app='clients': is missing from the installation; install fedcpsc again"):
        stage_app(tmp_path / "app", tmp_path / "run.yaml")
