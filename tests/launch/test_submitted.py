# SPDX-License-Identifier: Apache-2.0
"""A run is followed to its end, also through a SuperLink's restart; and how the command `flwr` fails is told."""

import itertools
import json
import subprocess

import pytest
from support.run_results import result

from fedcpsc.errors import RunError
from fedcpsc.launch import submitted
from fedcpsc.launch.flower_commands import FlowerCommands, RunStatus
from fedcpsc.launch.submitted import submit_and_wait

COMPLETED, RUNNING = RunStatus("finished:completed", ""), RunStatus("running", "")


class Flower:
    """`flwr` of a SuperLink that goes away: what is asked gets the next of `answers`, errors are raised."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.followed = 0

    def submit(self, app_folder, run_config, federation_config):
        return "1"

    def follow(self, run_id, log):
        self.followed += 1
        with log.open("a") as file:
            file.write(f"told from the beginning, time {self.followed}\n")
        return self

    def poll(self):
        return 0

    def status(self, run_id):
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(submitted, "_SETTLE_S", -1.0)  # the first status counts
    monkeypatch.setattr(submitted, "_LOOK_S", 0.01)
    (tmp_path / "result.json").write_text(json.dumps(result()))
    (tmp_path / "flower.log").write_text("an earlier attempt\n")
    return tmp_path


def see(flower, run_dir, **options):
    return submit_and_wait(flower, run_dir / "app", run_dir / "run.toml", run_dir, bool, **options)


def test_a_superlink_that_comes_back_costs_nothing_and_its_log_is_told_once(run_dir):
    flower = Flower(RunError("away"), RunError("away"), RUNNING, RUNNING, COMPLETED)
    assert see(flower, run_dir, patience_s=30) == result()
    assert flower.followed == 3
    assert (run_dir / "flower.log").read_text() == "an earlier attempt\ntold from the beginning, time 3\n"


def test_a_superlink_that_stays_away_is_an_error(run_dir):
    with pytest.raises(RunError, match="away"):
        see(Flower(*itertools.repeat(RunError("away"), 1000)), run_dir, patience_s=0.1)


def test_without_patience_a_run_that_does_not_end_is_an_error(run_dir):
    with pytest.raises(RunError, match="running"):
        see(Flower(RUNNING), run_dir)


def test_a_command_without_a_reply_is_an_error_with_the_log_to_read(tmp_path, monkeypatch):
    def hangs(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hangs)
    flower = FlowerCommands("deployment", {}, tmp_path / "superlink.log")
    with pytest.raises(RunError, match=r"flwr ls=.*no reply within 120 s.*superlink\.log"):
        flower.status("1")
