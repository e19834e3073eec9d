# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc sweep`: what was asked for, what the terminal shows of it, and the exit code."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.run_results import line
from support.tiny_runs import SMOKE
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.commands.sweep_view import SweepView, summary_table
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.sweep import run as sweep_run
from fedcpsc.sweep.expand import Setting
from fedcpsc.sweep.schedule import Outcome, Progress, Running
from fedcpsc.sweep.table import Summary
from fedcpsc.sweep.tasks import Task

PLAN = {
    "config": str(SMOKE),
    "name": "rules",
    "seeds": [1, 2],
    "settings": {"uniform": {"aggregation.rule": "uniform"}, "two words": {"synthesis.prior": {"smooth": 1}}},
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """File of a plan, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.yaml"
    path.write_text(dump_plain(PLAN))
    return str(path)


@pytest.fixture
def nothing_runs(monkeypatch):
    """Instead of processes: each number of processes that was asked for; every task fails."""
    seen = []

    def work(tasks, folder, jobs, watch):
        seen.append(jobs)
        return {task.name: Outcome(1.0, "DataError: none") for task in tasks}

    monkeypatch.setattr(sweep_run, "work", work)
    return seen


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["sweep", *arguments])


def test_a_dry_run_lists_the_settings_as_they_are_given_by_hand_and_makes_nothing(plan):
    done = invoke(plan, "--dry-run", "--set", "queries.rounds=2")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "uniform: --set aggregation.rule=uniform",
        "two words: --set 'synthesis.prior={\"smooth\": 1}'",
        "with each of the seeds 1, 2: 4 runs, in sweeps/rules",
    ]
    assert not Path("sweeps").exists()


def test_failed_runs_are_named_and_the_exit_code_says_so(plan, nothing_runs):
    done = invoke(plan, "--jobs", "3", "--out", "elsewhere")
    assert done.exit_code == 1
    assert nothing_runs == [3]
    assert "failed: uniform-seed1: DataError: none" in done.stdout
    assert "the same command tries again what failed" in done.stdout
    assert Path("elsewhere/table.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "aggregation.rule=entropy"), "the plan varies aggregation.rule"),
        (("--max-runs", "3"), "--max-runs 4"),
        (("--set", "studnet.width=3"), "studnet"),
    ],
)
def test_a_wrong_plan_or_option_is_exit_code_2_before_anything_starts(plan, nothing_runs, arguments, words):
    done = invoke(plan, *arguments)
    assert (done.exit_code, nothing_runs) == (2, [])
    assert words in done.stderr


def test_a_plan_that_is_missing_is_named(tmp_path):
    done = invoke(str(tmp_path / "no.yaml"))
    assert done.exit_code == 2
    assert "no.yaml" in done.stderr


def test_a_stop_says_that_the_same_command_goes_on(plan, monkeypatch):
    def stops(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_run, "work", stops)
    done = invoke(plan)
    assert done.exit_code == 130
    assert "what is done is kept, go on with the same command" in " ".join(done.stderr.split())


def figure(mean, std=0.012):
    return {"mean": mean, "std": std, "values": [] if mean is None else [mean]}


def summary_of(name, mean, missing=0):
    setting = Setting(name, {}, {})
    figures = [figure(mean), figure(0.975), figure(0.74), figure(None if mean is None else 0.011), figure(30.0)]
    return Summary(setting, 3 - missing, missing, *figures, 5000, None)


@pytest.mark.parametrize("names", [("a", "b"), ("a long name with many words of a setting " * 2, "x" * 90)])
@pytest.mark.parametrize("missing", [0, 1])
def test_the_table_fits_80_columns_and_cuts_no_name(names, missing):
    summaries = [summary_of(name.strip(), mean, missing) for name, mean in zip(names, (0.93, None), strict=True)]
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table("rules", 3, summaries))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    width = 31 if missing else 40  # of the column of names, where no column of runs stands beside it
    column = "".join("".join(row[:width].split()) for row in shown.splitlines())
    assert all("".join(name.split()) in column for name in names)
    assert "93.0 ± 1.2" in shown
    assert ("2 of 3" in shown) is bool(missing)


def test_every_run_under_way_is_in_sight_on_a_terminal_of_80_columns():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    job = {"do": "run", "config": {}, "made": "", "run_dir": "", "silos": "", "source": "", "overrides": []}
    silos = Task("silos-1", "silos of seed 1, for 2 runs", job, (), None)
    runs = [Task(f"r{i}", f"a-setting-with-a-name-that-goes-on-{i}-seed{i}", job, (), object()) for i in range(3)]
    lines = [line(), line(phase="final", student_accuracy=0.934, share_done=0.97), None]
    running = [Running(task, 12.0, told, "") for task, told in zip(runs, lines, strict=True)]
    running.append(Running(silos, 3.0, None, "silo-1: training convnet on 400 images"))
    done = {"old": Outcome(5.0), "broken": Outcome(1.0, "DataError: gone")}
    with SweepView(console) as view:
        view.watch(Progress(tuple(running), done, 9, 75.0, ended=(runs[0], done["broken"])))
    shown = out.getvalue()
    assert "2 of 9 processes ended, 1 min 15 s, 1 failed" in shown
    assert "round 2/4" in shown
    assert "final fit, 93.4 %" in shown
    assert "failed: DataError: gone" in shown
    assert "silo-1: training" in shown
    rows = [row for row in shown.splitlines() if "seed" in row and "failed" not in row]
    assert max(map(len, rows)) <= 80
