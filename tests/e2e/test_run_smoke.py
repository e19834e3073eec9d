# SPDX-License-Identifier: Apache-2.0
"""Real processes: SuperLink, Ray, two silos. Slow for a test, so each of them looks at several things."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from fedcpsc.config import load_config

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs/smoke.yaml"
MARK = "FEDCPSC_TEST_MARK"
LONG = (str(SMOKE), "--set", "student.final_steps=800")  # so long that a signal after two rounds is never too late


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Shell:
    """Runs commands in an empty folder; knows every process that descends from them, however detached."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.env = {**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fedcpsc.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # a suite that runs in the background of a shell has inherited that SIGINT is ignored
        heed = _heed_interrupts
        return subprocess.Popen(command, cwd=self.folder, env=self.env, preexec_fn=heed, **pipes)  # noqa: PLW1509

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        found = psutil.process_iter(["environ"])
        return [process for process in found if (process.info["environ"] or {}).get(MARK) == self.mark]


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    yield made
    for process in made.processes():
        process.kill()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_run_that_is_stopped_halfway_leaves_no_process_and_can_be_resumed_to_its_end(shell):
    run_dir = shell.folder / "runs/smoke"
    first = shell.start("run", *LONG)
    while len(lines(run_dir / "metrics.jsonl")) < 2:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    started = psutil.Process(first.pid).children(recursive=True)
    assert any("ray::" in process.name() for process in started)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "--resume" in err
    assert [process for process in started if process.is_running()] == []
    assert shell.processes() == []

    refused = shell.run("run", *LONG)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr

    done = shell.run("run", *LONG, "--resume")
    assert done.returncode == 0, done.stderr
    assert shell.processes() == []
    assert "reused" in done.stdout
    for part in ("teacher silo-0", "teacher silo-1", "ensemble", "student", "400 answers per silo"):
        assert part in done.stdout

    result = json.loads((run_dir / "result.json").read_text())
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    for silo in result["silos"]:
        assert silo["answers"] == 400
        assert silo["train_size"] > 600
        assert silo["teacher_accuracy"] > 0.3
    assert result["ensemble"]["accuracy"] > 0.3
    assert result["student"]["accuracy"] > 0.1
    assert result["bytes_sent"] > 0
    # nothing was paid for twice: what the first attempt was answered counts, and no more than the budget was charged
    spent = [100_000 - silo["answers_left"] for silo in result["silos"]]
    assert spent == [400, 400]
    assert load_config(run_dir / "config.yaml").silos.count == 2
    assert "the whole run on one page" in (run_dir / "flower.log").read_text()  # the server drew it
    for name in ("student.safetensors", "metrics.jsonl", "flower.log", "samples.png", "curve.png", "report.html"):
        assert (run_dir / name).stat().st_size > 0

    again = shell.run("run", *LONG, "--resume")
    assert again.returncode == 0
    assert "teacher silo-0" in again.stdout


def test_a_run_that_fails_says_why_and_is_not_called_a_success(shell):
    done = shell.run("run", str(SMOKE), "--set", "aggregation.rule=class_prior_log")  # whose counts nobody shares
    assert done.returncode == 1
    reason = (shell.folder / "runs/smoke/error.txt").read_text().strip()
    assert reason.partition(": ")[2] in done.stderr
    assert "class" in done.stderr
    assert shell.processes() == []
    assert not (shell.folder / "runs/smoke/result.json").exists()


def test_a_plain_flwr_run_makes_the_configurations_silos_on_flowers_two_nodes_and_leaves_its_page(shell):
    home = shell.folder / "home"
    shell.env |= {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": "39391",
        "FLWR_LOCAL_CONTROL_API_PORT": "39393",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_ADDRESS": "local",
        "RAY_TMPDIR": "/tmp",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    command = ["flwr", "run", str(ROOT), "--stream", "--run-config"]
    command += ['config="configs/smoke.yaml" overrides="silos.count=3"']
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "joined: silo-0, silo-1, silo-2" in done.stdout
    assert "round 4/4" in done.stdout
    assert re.search(r"teacher silo-0 .*%, teacher silo-1 .*%, ensemble .*%, student .*%", done.stdout)
    (run_dir,) = (shell.folder / "runs").iterdir()
    assert json.loads((run_dir / "result.json").read_text())["answers_per_silo"] == 400
    assert sorted(path.name for path in (shell.folder / "silos/smoke").iterdir()) == ["0", "1", "2"]
    assert f"the whole run on one page: {run_dir}/report.html" in done.stdout
    assert "Run smoke" in (run_dir / "report.html").read_text()
