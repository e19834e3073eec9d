# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc bank export`, `bank check` and `bank import`, as a user types them."""

import pytest
from support.shared_run import EAST, NORTH, SOUTH, shared_run
from typer.testing import CliRunner

from fedcpsc.cli import app


def invoke(*words):
    found = CliRunner().invoke(app, ["bank", *map(str, words)])
    return found.exit_code, found.output


@pytest.mark.parametrize("file_format", ["parquet", "safetensors"])
def test_a_run_is_exported_and_checked_and_said_what_it_holds(tmp_path, file_format):
    run = shared_run(tmp_path / "run")
    code, told = invoke("export", run.folder, tmp_path / "out", "--format", file_format)
    assert code == 0
    assert told.splitlines() == [
        "44 images of 3x4x5, 4 classes, of the run test, which had not finished",
        f"  {NORTH}: 44 answered (not private)",
        f"  {EAST}: 12 answered (epsilon 2 per record)",
        f"  {SOUTH}: 16 answered (not private)",
        "  left out: 4 images that none of these answered",
        f"left in {tmp_path / 'out'}",
    ]
    code, told = invoke("check", tmp_path / "out")
    assert (code, told.splitlines()[-1]) == (0, f"every row of {tmp_path / 'out'} is as it should be")
    code, told = invoke("import", tmp_path / "out", tmp_path / "again")
    assert (code, told.splitlines()[0]) == (0, "44 images of 3x4x5, 4 classes, of the run test, which had not finished")
    assert invoke("import", tmp_path / "out", tmp_path / "again")[0] == 1, "a run lies there"


def test_a_silo_that_forbids_it_is_told_with_the_command_that_goes_without_it(tmp_path):
    run = shared_run(tmp_path / "run")
    run.say(SOUTH, share_answers=False)
    code, told = invoke("export", run.folder, tmp_path / "out")
    assert code == 1
    assert "south: its policy says share_answers: false" in told
    assert not (tmp_path / "out").exists()
    code, told = invoke("export", run.folder, tmp_path / "out", "--exclude", "south", "--silo-answers", "none")
    assert code == 0
    assert "targets alone, without the silos' answers" in told
    assert "left out: 1 silos, 4 images that none" in told
    assert invoke("check", tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--exclude", "nobody"), 2, "no silo of this run has the name"),
        (("--format", "csv"), 2, "csv"),
        (("--silo-answers", "some"), 2, "some"),
    ],
)
def test_what_is_typed_wrong_is_told(tmp_path, more, code, message):
    run = shared_run(tmp_path / "run")
    found = invoke("export", run.folder, tmp_path / "out", *more)
    assert found[0] == code
    assert message in found[1]


def test_a_folder_that_is_none_is_told(tmp_path):
    assert invoke("export", tmp_path, tmp_path / "out")[0] == 1
    code, told = invoke("check", tmp_path)
    assert code == 1
    assert "holds no answers.json" in told
