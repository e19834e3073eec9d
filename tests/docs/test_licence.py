# SPDX-License-Identifier: Apache-2.0
"""Every file of code says under which licence it may be used, so that one copied out of here still does."""

import tomllib

from support.documented import ROOT

LICENCE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]


def test_every_python_file_begins_with_the_licence_of_the_package():
    folders = ["fedcpsc", "server", "clients", "benchmarks", "website", "tests", "examples"]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    wrong = [str(file) for file in files if first_line(file) != f"# SPDX-License-Identifier: {LICENCE}"]
    assert not wrong, "begin each with the line that the others have"


def first_line(file):
    with file.open(encoding="utf-8") as lines:
        return lines.readline().rstrip("\n")
