# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc run` leaves its report, and one that cannot be drawn is told and fails no run; `fedcpsc report` alone."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_runs import SMOKE, TINY_SMOKE
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.commands.run_command import Request, run_once
from fedcpsc.report import page
from fedcpsc.runs.claim import Existing

runner = CliRunner()


def broken(*args, **options):
    raise ZeroDivisionError("no ink")


def test_a_run_ends_with_its_report_and_ends_well_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console = Console(file=io.StringIO(), width=140)
    with monkeypatch.context() as patch:
        patch.setattr(page, "write_report", broken)
        result = run_once(Request(SMOKE, TINY_SMOKE, Existing.REFUSE, local=True), console)
    assert result["answers_per_silo"] == 40
    assert "report.html could not be drawn (ZeroDivisionError: no ink); the run is complete" in console.file.getvalue()
    assert "fedcpsc report" in console.file.getvalue()
    report = Path("runs/smoke/report.html")
    assert not report.exists()

    assert run_once(Request(SMOKE, TINY_SMOKE, Existing.RESUME, local=True), console) == result
    assert "Run smoke" in report.read_text()

    report.unlink()
    done = runner.invoke(cli.app, ["report", "runs/smoke"])
    assert (done.exit_code, done.stdout.strip()) == (0, "left in runs/smoke/report.html")
    assert "Run smoke" in report.read_text()

    done = runner.invoke(cli.app, ["report", "runs/smoke", "--private", "silos/smoke/1", "--out", "mine.html"])
    assert done.exit_code == 0
    assert "For the owner of silo-1 alone" in Path("mine.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "not the folder of a run"),
        (["."], "not the folder of a run"),
    ],
)
def test_what_is_no_run_is_told_with_an_exit_code(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(cli.app, ["report", *options])
    assert done.exit_code == 1
    assert words in done.stderr


def test_help_shows_an_example():
    assert "Example: fedcpsc report" in runner.invoke(cli.app, ["report", "--help"]).output
