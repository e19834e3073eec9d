# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc deploy local` as people use it: a run by the printed line, and one that the death of all cuts short."""

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
from support.documented import ROOT

from fedcpsc.launch.deployment.members import CONNECTION
from fedcpsc.launch.flower_commands import FlowerCommands
from fedcpsc.launch.processes import flower_environment
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.teachers.manifest import load_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MARK = "FEDCPSC_TEST_MARK"
FEDCPSC = [sys.executable, "-m", "fedcpsc.cli"]
SMALL = ["configs/digits.yaml", "--set", "silos.partition.kind=iid", "--set", "teachers.epochs=3"]
SMALL += ["--set", "queries.answers_per_silo=400", "--set", "queries.rounds=2", "--set", "student.final_steps=150"]
SMALL += ["--set", "evaluation.every=2"]
RECIPES = ["--set", "silos.policy.recipe_queries=true", "--set", "queries.recipes=true"]
RECIPES += ["--set", "synthesis.width=8"]  # at 8x8 images a recipe is the shorter only where its generator is small


@pytest.fixture
def environment():
    """Ours, marked, so that every process that comes of it can be found; nothing of it survives the test."""
    mark = uuid.uuid4().hex
    yield {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "NO_PROXY": "127.0.0.1"}
    for process in with_mark(mark):
        process.kill()


def with_mark(mark):
    found = psutil.process_iter(["environ"])
    return [process for process in found if (process.info["environ"] or {}).get(MARK) == mark]


def until(happened, process, log, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return found


def spent(silos):
    """What the ledgers of two silos say; their chains are verified."""
    found = []
    for number in range(2):
        silo = silos / str(number)
        ledger = Ledger.open(silo / LEDGER_FILE, load_manifest(silo).population)
        found.append(ledger.verify().spent.answers)
        ledger.close()
    return found


def test_up_a_run_by_the_printed_line_and_down_without_a_trace(tmp_path, environment):
    silos, folder, log = tmp_path / "silos", tmp_path / "deployment", tmp_path / "log"
    command = [*FEDCPSC, "deploy", "local", *SMALL, *RECIPES, "--set", f"silos.root={silos}", "--silos", "2"]
    command += ["--folder", str(folder)]
    with log.open("wb") as file:
        deployed = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    line = until(lambda: re.search(r"^FLWR_HOME=.* flwr run \. .*$", log.read_text(), re.M), deployed, log)[0]
    until(lambda: log.read_text().count(": up, ") == 6, deployed, log)
    sockets = [Path(path) for path in re.findall(r"^gatekeeper \d: up, (\S+),", log.read_text(), re.M)]
    assert len(sockets) == 2
    assert all(path.is_socket() and path.stat().st_mode & 0o077 == 0 for path in sockets)

    bin_first = f"{Path(sys.executable).parent}:{environment['PATH']}"
    streamed = subprocess.run(
        line, shell=True, cwd=ROOT, env=environment | {"PATH": bin_first}, capture_output=True, text=True, check=False
    )
    assert "joined: silo-0, silo-1" in streamed.stdout, streamed.stdout + streamed.stderr + log.read_text()
    (run_dir,) = (folder / "runs").iterdir()
    deployment = json.loads((run_dir / "result.json").read_text())
    assert f"the whole run on one page: {run_dir}/report.html" in streamed.stdout
    assert "Run digits" in (run_dir / "report.html").read_text()
    run_id = run_dir.name.rpartition("-")[2]
    flower = FlowerCommands(CONNECTION, flower_environment(folder / "server/flwr"), log)
    assert flower.status(run_id).name == "finished:completed"
    assert set(flower.nodes().values()) == {"online"}

    deployed.send_signal(signal.SIGTERM)
    assert deployed.wait(120) == 0, log.read_text()
    assert with_mark(environment[MARK]) == []
    assert not any(path.parent.exists() for path in sockets)
    assert "everything is down" in log.read_text()

    assert [silo["answers"] for silo in deployment["silos"]] == [400, 400]
    assert 0 < deployment["bytes_sent"] < 2 * 400 * 64, "less than the images: the silos made them"
    two = Path(f"{silos}-of-2")  # the file's three would be other shares of the data
    assert spent(two) == [400, 400]

    simulated = [*FEDCPSC, "run", "--local", *SMALL, *RECIPES, "--set", "silos.count=2", "--set", f"silos.root={two}"]
    simulated += ["--set", f"output.root={tmp_path}/simulated"]
    done = subprocess.run(simulated, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    simulation = json.loads((tmp_path / "simulated/digits/result.json").read_text())
    # the same to the last bit where the answers came in the same order; seeds alone differ by 2.6 points on the digits
    assert abs(deployment["student"]["accuracy"] - simulation["student"]["accuracy"]) < 0.05


def test_a_machine_that_dies_under_a_run_goes_on_with_it(tmp_path, environment):
    folder, silos, log = tmp_path / "deployment", tmp_path / "silos", tmp_path / "log"
    own = ["--set", f"silos.root={silos}", "--folder", str(folder)]
    command = [*FEDCPSC, "deploy", "local", "configs/smoke.yaml", *own]
    with log.open("wb") as file:
        first = subprocess.Popen([*command, "--run"], cwd=ROOT, env=environment, stdout=file, stderr=file)
    journal = folder / "runs/smoke/bank/journal.jsonl"
    until(lambda: journal.exists() and '"answered"' in journal.read_text(), first, log)
    for process in with_mark(environment[MARK]):
        process.kill()
    first.wait()
    paid = spent(silos)
    assert not (folder / "runs/smoke/result.json").exists()
    assert max(paid) > 0

    done = subprocess.run(
        [*command, "--resume"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert with_mark(environment[MARK]) == []
    assert [path.name for path in (folder / "runs").iterdir()] == ["smoke"]
    assert spent(silos) == [400, 400]
    assert "Run smoke" in (folder / "runs/smoke/report.html").read_text()
    again = subprocess.run(
        [*command, "--resume"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0
    assert "student" in again.stdout
    assert "SuperNodes" not in again.stdout, "a finished run needs no federation"
