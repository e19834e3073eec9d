# SPDX-License-Identifier: Apache-2.0
"""A run's folder is free, refused, resumed or moved aside, and worked on by one process at a time."""

import json

import pytest

from fedcpsc.errors import RunError
from fedcpsc.runs.claim import Existing, claim, worked_on_alone


@pytest.fixture
def earlier(tmp_path):
    """A run that ended well."""
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "result.json").write_text(json.dumps({"name": "digits"}))
    return folder


@pytest.mark.parametrize("existing", Existing)
def test_a_free_name_is_free_whatever_was_asked(tmp_path, existing):
    assert claim(tmp_path / "new", existing) is False


def test_a_folder_with_only_logs_of_a_run_that_never_began_is_free(tmp_path):
    (tmp_path / "flower.log").write_text("")
    assert claim(tmp_path, Existing.REFUSE) is False


def test_a_finished_run_is_not_touched_unasked(earlier):
    with pytest.raises(RunError, match="a finished run.*--resume.*--overwrite.*--name"):
        claim(earlier, Existing.REFUSE)


def test_an_unfinished_run_is_called_so(earlier):
    (earlier / "result.json").unlink()
    with pytest.raises(RunError, match="an unfinished run"):
        claim(earlier, Existing.REFUSE)


def test_a_run_can_be_resumed_in_place(earlier):
    assert claim(earlier, Existing.RESUME) is True
    assert earlier.exists()


def test_overwriting_moves_the_earlier_run_aside_and_keeps_one(earlier):
    for generation in ("first", "second"):
        earlier.mkdir(exist_ok=True)
        (earlier / "config.yaml").write_text(generation)
        assert claim(earlier, Existing.OVERWRITE) is False
        assert not earlier.exists()
        assert (earlier.with_name("digits.previous") / "config.yaml").read_text() == generation


def test_a_runs_folder_is_worked_on_by_one_process_at_a_time(tmp_path):
    run = tmp_path / "run"
    refused = pytest.raises(RunError, match="another process works on it; wait for its end")
    with worked_on_alone(run), refused, worked_on_alone(run):
        pass
    with worked_on_alone(run):
        pass
