# SPDX-License-Identifier: Apache-2.0
"""The version stands in one place, and what an installation holds of the project's own files."""

import re
import tomllib
from pathlib import Path

import yaml

import fedcpsc
from fedcpsc.launch.app_folder import stage_app
from fedcpsc.provenance import versions
from fedcpsc.version import project_file, version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]


def test_all_who_tell_the_version_read_it_from_the_project_file():
    assert version() == fedcpsc.__version__ == versions()["fedcpsc"] == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_no_source_file_spells_it_a_second_time():
    for folder in ("fedcpsc", "clients", "server", "website", "deploy"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".toml", ".cfg"}:
                text = path.read_text(encoding="utf-8")
                assert not re.search(rf"version\w*\s*=\s*[\"']{re.escape(VERSION)}", text), path


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_app_that_flower_gets_has_the_version_too(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    stage_app(tmp_path / "app", tmp_path / "run.yaml")
    assert tomllib.loads((tmp_path / "app/pyproject.toml").read_text())["project"]["version"] == VERSION
    assert project_file() == ROOT / "pyproject.toml"


def test_a_wheel_carries_what_type_checkers_and_app_bundles_need():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert (ROOT / "fedcpsc/py.typed").read_bytes() == b""
    assert wheel["packages"] == ["fedcpsc"]  # all files of the package, py.typed too
    assert wheel["force-include"]["pyproject.toml"] == "fedcpsc/launch/pyproject.toml"
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_a_wheel_claims_no_other_name_for_import_than_the_projects_own():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = [*wheel["packages"], *wheel["force-include"].values()]
    assert {place.split("/")[0] for place in places} == {"fedcpsc"}


def test_the_citation_names_the_project_and_the_method():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert set(citation) >= {"cff-version", "message", "title", "authors", "license", "references"}
    assert citation["title"] == PROJECT["project"]["name"]
    assert citation["license"] == PROJECT["project"]["license"]
    (method,) = citation["references"]
    assert method["type"] == "article"
    assert {"title", "authors", "journal", "year", "volume"} <= set(method)


def test_the_workflow_runs_the_projects_checks_on_each_python_it_claims():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    claimed = {line.rsplit(" ", 1)[-1] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line}
    assert set(job["strategy"]["matrix"]["python"]) == claimed
    assert any(".ci/run" in step.get("run", "") for step in job["steps"])
