# SPDX-License-Identifier: Apache-2.0
"""An adopted ONNX silo through the commands as people use them: nothing of it changes but its ledger."""

import json
import os
import subprocess
import sys

import pytest
from support.adopted_silo import adopt, fingerprints
from support.documented import ROOT
from support.tiny_runs import SMOKE, TINY_SMOKE

from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

COMMANDS = {"teachers": (), "run": ("--name", "flower"), "deploy": ("--run", "--folder", "deployment")}


def answers_spent(folder):
    mark = mark_path(folder, load_policy(folder / POLICY_FILE))
    ledger = Ledger.open(folder / LEDGER_FILE, "clinic-north", high_water_mark=mark)
    spent = ledger.verify().spent.answers
    ledger.close()
    return spent


def test_teachers_run_and_deployment_leave_an_adopted_silo_as_it_is(tmp_path):
    folder = adopt(tmp_path / "silos/smoke/1")
    before, spent = fingerprints(folder), 0
    settings = [part for item in TINY_SMOKE for part in ("--set", item)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    for name, options in COMMANDS.items():
        command = [name, "local"] if name == "deploy" else [name]
        whole = [sys.executable, "-m", "fedcpsc.cli", *command, str(SMOKE), *settings, *options]
        done = subprocess.run(
            whole, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "clinic-north: onnx, adopted, used as it is" in done.stdout
        assert fingerprints(folder) == before
        spent += 0 if name == "teachers" else 40
        assert answers_spent(folder) == spent
    result = json.loads((tmp_path / "runs/flower/result.json").read_text())
    assert {silo["id"]: silo["answers"] for silo in result["silos"]} == {"silo-0": 40, "clinic-north": 40}
    assert (tmp_path / "runs/flower/bank").stat().st_mode & 0o777 == 0o700
