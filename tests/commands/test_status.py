# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc status`: words or JSON, and an exit code that a script can heed."""

import json
import os
import time

import pytest
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport

runner = CliRunner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "test"
    distill(tiny_config(), LocalTransport([FakeSilo("silo-0"), FakeSilo("silo-1")]), folder)
    return folder


def test_a_finished_run_exits_0_and_tells_itself_as_json_too(finished):
    done = runner.invoke(app, ["status", str(finished)])
    assert done.exit_code == 0
    assert done.stdout.startswith("test: finished, final fit, 100% done")
    told = json.loads(runner.invoke(app, ["status", str(finished), "--json"]).stdout)
    assert told["state"] == "finished"
    assert [silo["answers"] for silo in told["silos"]] == [120, 120]


def test_a_stalled_run_exits_3_and_a_failed_one_1(finished, tmp_path):
    for path in ("config.yaml", "metrics.jsonl"):
        (tmp_path / path).write_bytes((finished / path).read_bytes())
        os.utime(tmp_path / path, (time.time() - 100, time.time() - 100))
    assert runner.invoke(app, ["status", str(tmp_path), "--stalled-after", "200"]).exit_code == 0
    done = runner.invoke(app, ["status", str(tmp_path), "--stalled-after", "50"])
    assert (done.exit_code, done.stdout.splitlines()[0].split(",")[0]) == (3, "test: stalled")
    (tmp_path / "error.txt").write_text("RunError: the disk is full\n")
    done = runner.invoke(app, ["status", str(tmp_path)])
    assert done.exit_code == 1
    assert "error: RunError: the disk is full" in done.stdout


def test_a_folder_without_a_run_exits_2(tmp_path):
    done = runner.invoke(app, ["status", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds no run" in done.stderr
