# SPDX-License-Identifier: Apache-2.0
"""A disk that is full: said in words, and after it has room again the run goes on as if nothing had been.

The limit on a file's size stands in for the disk's end: the system breaks the write off in its middle in the same way.
"""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.distillation.checkpoint import load_checkpoint
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steps import make_committee
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import BankError, RunError
from fedcpsc.files import drop_half_a_line


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run(folder, silos, **how):
    return distill(tiny_config(), LocalTransport(silos), folder, **how)


def silos():
    return [FakeSilo(f"silo-{i}") for i in range(2)]


def goes_on(folder, fakes):
    """Resumes the run, and holds it to what a run without trouble costs and leaves."""
    result = run(folder, fakes, resume=True)
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    assert {fake.left for fake in fakes} == {10_000 - 120}, "no image is paid for twice"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines if line["phase"] == "round"] == [1, 2, 3, 4]


def rounds_kept(folder):
    config = tiny_config()
    members = make_committee(config.student, 3, (1, 8, 8), config.seed, torch.device("cpu"))
    return len(load_checkpoint(folder / "checkpoint", members, torch.device("cpu")).ends)


@pytest.mark.parametrize(
    ("size", "what", "rounds"),
    [(1000, "run=.*cannot be written", 0), (80_000, "checkpoint=.*cannot be written", 1)],  # config.yaml; state.pt
)
def test_a_file_that_finds_no_room_is_told_and_costs_nothing(tmp_path, size, what, rounds):
    fakes = silos()
    with largest_file(size), pytest.raises(RunError, match=f"{what}.*free space.*resume"):
        run(tmp_path / "run", fakes)
    assert rounds_kept(tmp_path / "run") == rounds, "the checkpoint before is whole"
    assert not list(tmp_path.rglob("state.pt.partial")), "and no half one keeps room from the next"
    goes_on(tmp_path / "run", fakes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_bank_that_finds_no_room_is_told_and_costs_nothing(tmp_path):
    fakes = silos()
    answers, kept = tmp_path / "run/bank/answers-0.f32", tmp_path / "kept"

    def fills_up(query, count):
        if count == 3:
            answers.rename(kept)
            answers.symlink_to("/dev/full")

    fakes[0].misbehave = fills_up
    with pytest.raises(BankError, match=r"bank=.*answers-0\.f32.*No space left on device.*free space.*then resume"):
        run(tmp_path / "run", fakes)
    assert rounds_kept(tmp_path / "run") == 2
    answers.unlink()
    kept.rename(answers)
    goes_on(tmp_path / "run", fakes)


def test_half_a_line_is_cut_off_before_the_next_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    drop_half_a_line(path)
    assert not path.exists()
    path.write_text('{"round": 1}\n{"rou')
    drop_half_a_line(path)
    assert path.read_text() == '{"round": 1}\n'
    path.write_text('{"rou')
    drop_half_a_line(path)
    assert path.read_text() == ""
