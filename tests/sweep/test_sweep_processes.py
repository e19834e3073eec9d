# SPDX-License-Identifier: Apache-2.0
"""A whole sweep in its processes: stopped, killed, gone on with, and held against the same runs by hand."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from support.tiny_runs import SMOKE, TINY_SMOKE

from fedcpsc.commands.run_command import Request, run_once
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.runs.layout import CONFIG_FILE, REPORT_FILE, RESULT_FILE, STUDENT_FILE

pytestmark = pytest.mark.timeout(1500)

RULES, SEEDS = ("uniform", "entropy"), (1, 2)
NAMES = [f"{rule}-seed{seed}" for rule in RULES for seed in SEEDS]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedcpsc.cli", "sweep", "plan.yaml", *options]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still do something a little later; one that nobody has waited for yet does nothing."""
    _, left = psutil.wait_procs(processes, timeout=20)
    return [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def until(happened, seconds: float = 300):
    """Looks often: a tiny run is over in a second."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def spent(silo: Path) -> int:
    population = json.loads((silo / "manifest.json").read_text())["population"]
    with closing(Ledger.read(silo / LEDGER_FILE, population=population)) as ledger:
        return ledger.verify().spent.answers


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """Folder of a sweep that was stopped, killed in the middle of a run and then ended; what the last attempt said."""
    folder = tmp_path_factory.mktemp("swept")
    settings = {rule: {"aggregation.rule": rule} for rule in RULES}
    plan = {"config": str(SMOKE), "name": "rules", "set": list(TINY_SMOKE), "seeds": list(SEEDS), "settings": settings}
    (folder / "plan.yaml").write_text(dump_plain(plan))
    runs = folder / "sweeps/rules/runs"

    stopped = start(folder, "--jobs", "2")
    ours = until(lambda: children(stopped))
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "what is done is kept, go on with the same command" in " ".join(said.split())
    assert not alive(ours)

    killed = start(folder, "--jobs", "2")
    until(lambda: list(runs.glob(f"*/{RESULT_FILE}")))
    half = until(lambda: [p.parent for p in runs.glob(f"*/{CONFIG_FILE}") if not (p.parent / RESULT_FILE).exists()])
    ours = children(killed)
    assert ours
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not alive(ours), "a process went on without its sweep"
    whole = {path: path.read_bytes() for path in runs.glob(f"*/{RESULT_FILE}")}

    last = start(folder, "--jobs", "2")
    said, _ = last.communicate(timeout=1000)
    assert last.returncode == 0, said
    return folder, whole, half, said


def test_what_was_done_is_not_done_again_and_half_a_run_is_gone_on_with(attempts):
    folder, whole, half, said = attempts
    assert whole
    assert all(path.read_bytes() == content for path, content in whole.items())
    assert f"{len(whole)} of them done before" in said
    for run in half:
        silos = folder / "sweeps/rules/silos" / run.name
        assert [spent(silos / str(silo)) for silo in range(2)] == [40, 40], "answers were paid twice"


def test_the_figures_are_those_of_the_same_runs_by_hand(attempts, tmp_path, monkeypatch):
    folder = attempts[0]
    monkeypatch.chdir(tmp_path)
    for rule in RULES:
        for seed in SEEDS:
            name = f"{rule}-seed{seed}"
            overrides = (*TINY_SMOKE, f"aggregation.rule={rule}", f"seed={seed}")
            own = (f"output.name={name}", f"silos.root=silos/{name}")
            by_hand = run_once(Request(SMOKE, (*overrides, *own), local=True), Console(file=io.StringIO()))
            swept = folder / "sweeps/rules/runs" / name
            result = json.loads((swept / RESULT_FILE).read_text())
            for key in ("student", "ensemble", "answers_per_silo"):  # bytes are those of a run's last attempt
                assert result[key] == by_hand[key], key
            assert (swept / STUDENT_FILE).read_bytes() == (Path("runs") / name / STUDENT_FILE).read_bytes()


def test_silos_are_made_once_a_seed_and_every_run_spends_a_budget_of_its_own(attempts):
    sweep = attempts[0] / "sweeps/rules"
    made = list((sweep / "made").glob("*/made.json"))
    assert len(made) == len(SEEDS)
    assert all(spent(path.parent / str(silo)) == 0 for path in made for silo in range(2))
    assert {name: spent(sweep / "silos" / name / "0") for name in NAMES} == dict.fromkeys(NAMES, 40)


def test_every_run_leaves_what_a_run_leaves_and_the_sweep_its_results(attempts):
    folder, _, _, said = attempts
    sweep = folder / "sweeps/rules"
    assert all((sweep / "runs" / name / REPORT_FILE).exists() for name in NAMES)
    left = {path.name for path in sweep.iterdir() if path.is_file()}
    results = {"table.csv", "table.parquet", "summary.csv", "sweep.json", "sweep.png", "index.html"}
    assert left == results | {"plan.yaml", "run.lock"}
    assert "rules: accuracy, %, 2 seeds" in said
    assert max(map(len, said.split("rules: accuracy")[1].splitlines()[:8])) <= 80


def test_settings_that_share_answers_are_fitted_to_one_runs_and_nobody_is_asked_again(tmp_path):
    plan = {"config": str(SMOKE), "name": "fits", "set": list(TINY_SMOKE), "seeds": [1], "answers": "shared"}
    settings = {"same": {}, "wide": {"student.width": 12}}
    (tmp_path / "plan.yaml").write_text(dump_plain(plan | {"settings": settings}))
    said, _ = (process := start(tmp_path, "--jobs", "2")).communicate(timeout=600)
    assert process.returncode == 0, said
    assert "2 settings x 1 seeds = 2 runs, and 1 that ask for them" in said
    sweep = tmp_path / "sweeps/fits"
    (bank,) = (path.name for path in (sweep / "silos").iterdir())
    assert bank.startswith("as-configured")
    assert [spent(sweep / "silos" / bank / str(silo)) for silo in range(2)] == [40, 40]
    students = {path.parent.name: path.read_bytes() for path in (sweep / "runs").glob(f"*/{STUDENT_FILE}")}
    assert students["same-seed1"] == students[bank] != students["wide-seed1"]
    rows = json.loads((sweep / "sweep.json").read_text())["runs"]
    assert [(row["setting"], row["answers_of"], row["answers"]) for row in rows] == [
        ("same", bank, 40),
        ("wide", bank, 40),
    ]
    assert all(row["ensemble"] is not None for row in rows)
    assert "answers are shared" in said
