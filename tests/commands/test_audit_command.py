# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc audit` on the command line: what it prints, and the exit code that a pipeline goes by."""

import yaml
from support.tiny_audit import BROKEN
from typer.testing import CliRunner

from fedcpsc import cli

runner = CliRunner()
QUICK = {
    "name": "quick",
    "pool": 120,
    "shadows": {"count": 24, "width": 16},
    "surfaces": ["teacher"],
    "fprs": [0.05],
    "canaries": {"count": 60, "audited": 8, "guesses": 0.2},
    "threads": 1,
}


def called(tmp_path, policy, *more):
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(QUICK | {"policies": [policy]}))
    return runner.invoke(cli.app, ["audit", str(path), "--out", str(tmp_path / "out"), *more])


def test_help_shows_an_example():
    assert "Example: fedcpsc audit" in runner.invoke(cli.app, ["audit", "--help"]).output


def test_a_claim_that_is_exceeded_is_exit_code_3_also_when_asked_again(tmp_path):
    done = called(tmp_path, BROKEN)
    assert done.exit_code == 3, done.output
    assert "VIOLATION" in done.stdout
    again = called(tmp_path, BROKEN, "--resume")
    assert again.exit_code == 3
    (tmp_path / "out/audit.json").write_text("{")
    damaged = called(tmp_path, BROKEN, "--resume")
    assert damaged.exit_code == 1
    assert "audit.json" in damaged.stderr
    assert "delete it" in damaged.stderr


def test_a_claim_that_holds_is_exit_code_0(tmp_path):
    honest = BROKEN | {"noise_multiplier": 20, "epochs": 2}
    done = called(tmp_path, honest, "--set", "canaries.count=20")
    assert done.exit_code == 0, done.output
    assert "could have shown up to" in " ".join(done.stdout.split())
    assert "cannot be refuted as planned" not in done.stdout
    assert "No attack contradicts" in " ".join(done.stdout.split())
    assert called(tmp_path, honest).exit_code != 0  # the folder is taken


def test_a_claim_that_could_not_be_tested_is_loud_and_exit_code_0(tmp_path):
    """60 canaries in 8 shadows, a fifth guessed at: 96 guesses, which show at most 3.4."""
    done = called(tmp_path, BROKEN | {"epsilon": 8, "noise_multiplier": 20, "epochs": 2})
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    warning, verdict = said.index("cannot be refuted as planned: DP-SGD 8"), said.index("NOT TESTED: DP-SGD 8")
    assert warning < said.index("shadow teachers") < verdict  # before anything is trained, and at the end
    assert "could have shown at most" in said
    assert "contradicts" not in said
    assert "8 per" in said


def test_a_run_needs_its_silos(tmp_path):
    done = called(tmp_path, BROKEN, "--run", "runs/x")
    assert done.exit_code == 2
    assert "belong together" in done.stderr
