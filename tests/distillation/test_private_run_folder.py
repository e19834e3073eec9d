# SPDX-License-Identifier: Apache-2.0
"""What silos answered lies in a run's folder for whoever paid for it alone."""

import os

import numpy as np
import pytest

from fedcpsc.distillation.checkpoint import save_checkpoint
from fedcpsc.distillation.round_schedule import RoundSchedule
from fedcpsc.errors import BankError
from fedcpsc.runs.answer_bank import AnswerBank


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


def filled(folder) -> AnswerBank:
    bank = AnswerBank(folder, (1, 8, 8), 2, ["a", "b"])
    batch = bank.add_batch(0, np.zeros((3, 1, 8, 8), np.uint8), np.zeros(3, np.int64))
    bank.add_answers(batch.query_id, "a", np.full((3, 2), 0.5, np.float32))
    bank.answers(batch)
    assert bank.images.shape == (3, 1, 8, 8)
    return bank


@pytest.fixture(autouse=True)
def everybody_may_read():
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_bank_is_its_owners_alone_whatever_the_umask(tmp_path):
    filled(tmp_path / "run" / "bank")
    assert (tmp_path / "run" / "bank").stat().st_mode & 0o777 == 0o700
    assert set(modes(tmp_path / "run" / "bank")) > {"journal.jsonl", "images.u8", "answers-0.f32"}
    assert set(modes(tmp_path / "run" / "bank").values()) == {0o600}


def test_a_bank_of_before_is_closed_to_others_when_its_run_is_resumed(tmp_path):
    filled(tmp_path / "bank")
    (tmp_path / "bank").chmod(0o755)
    for path in (tmp_path / "bank").iterdir():
        path.chmod(0o644)
    assert AnswerBank(tmp_path / "bank", (1, 8, 8), 2, ["a", "b"]).rows == 3
    assert (tmp_path / "bank").stat().st_mode & 0o777 == 0o700
    assert set(modes(tmp_path / "bank").values()) == {0o600}


def test_a_checkpoint_is_likewise(tmp_path):
    (tmp_path / "checkpoint").mkdir(mode=0o755)
    save_checkpoint(tmp_path / "checkpoint", [], None, RoundSchedule(0), 0.0)
    assert (tmp_path / "checkpoint").stat().st_mode & 0o777 == 0o700


def test_a_bank_on_a_read_only_file_system_is_told_in_a_line(tmp_path, monkeypatch):
    def read_only(*args, **kwargs):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("fedcpsc.runs.answer_bank.private_folder", read_only)
    with pytest.raises(BankError, match=r"cannot be written \(Read-only file system\)"):
        AnswerBank(tmp_path / "bank", (1, 8, 8), 2, ["a"])
