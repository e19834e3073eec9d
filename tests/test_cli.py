# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.commands import run_command
from fedcpsc.errors import ConfigError, FederationError, RunError
from fedcpsc.runs.claim import Existing

ROOT = Path(__file__).parents[1]
runner = CliRunner()


@pytest.fixture
def calls(monkeypatch):
    """What the command line called, in place of doing it."""
    seen = []
    monkeypatch.setattr(run_command, "run_once", lambda request, console: seen.append(("once", request)))
    monkeypatch.setattr(run_command, "run_seeds", lambda request, count, console: seen.append((count, request)))
    return seen


@pytest.mark.parametrize("command", ["teachers", "run"])
def test_help_shows_an_example(command):
    shown = runner.invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: fedcpsc {command}" in shown.output


def test_without_a_command_help_is_shown():
    assert "Usage" in runner.invoke(cli.app, []).output


def test_run_passes_on_what_was_asked(calls):
    done = runner.invoke(
        cli.app, ["run", "a.yaml", "--set", "seed=3", "--name", "x", "--local", "--set", "silos.count=2"]
    )
    assert done.exit_code == 0
    ((kind, request),) = calls
    assert (kind, request.path, request.local) == ("once", Path("a.yaml"), True)
    assert request.overrides == ("seed=3", "silos.count=2", 'output.name="x"')
    assert request.existing is Existing.REFUSE


@pytest.mark.parametrize(("flag", "existing"), [("--resume", Existing.RESUME), ("--overwrite", Existing.OVERWRITE)])
def test_an_earlier_run_is_resumed_or_overwritten_only_when_asked(calls, flag, existing):
    runner.invoke(cli.app, ["run", "a.yaml", flag])
    assert calls[0][1].existing is existing


@pytest.mark.parametrize(
    ("arguments", "only", "next_"),
    [
        (["--set", "seed=3"], None, f"fedcpsc run {ROOT}/configs/smoke.yaml --set seed=3"),
        ([], None, f"fedcpsc run {ROOT}/configs/smoke.yaml"),
        (["--silo", "1"], 1, "fedcpsc policy check silos/smoke/1"),
    ],
)
def test_an_owner_makes_one_silo_and_is_told_what_is_next(monkeypatch, arguments, only, next_):
    made = []

    def make(config, console, silo):
        made.append((config.output.name, silo))
        return Path("silos/smoke")

    monkeypatch.setattr(run_command, "make_teachers", make)
    done = runner.invoke(cli.app, ["teachers", str(ROOT / "configs/smoke.yaml"), *arguments])
    assert done.exit_code == 0
    assert done.stdout == f"left in silos/smoke; next: {next_}\n"
    assert made == [("smoke", only)]


def test_resume_and_overwrite_together_are_refused(calls):
    assert runner.invoke(cli.app, ["run", "a.yaml", "--resume", "--overwrite"]).exit_code == 2
    assert calls == []


def test_seeds(calls):
    runner.invoke(cli.app, ["run", "a.yaml", "--seeds", "5"])
    assert calls[0][0] == 5
    assert runner.invoke(cli.app, ["run", "a.yaml", "--seeds", "0"]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a=1: b"), 2), (FederationError("c"), 1), (RunError("d"), 1), (KeyboardInterrupt(), 130)],
)
def test_errors_are_a_message_on_stderr_and_an_exit_code(monkeypatch, error, code):
    def failing(request, console):
        raise error

    monkeypatch.setattr(run_command, "run_once", failing)
    done = runner.invoke(cli.app, ["run", "a.yaml"])
    assert done.exit_code == code
    assert str(error) in done.stderr
    assert done.stdout == ""


def test_a_misspelt_key_is_named_with_its_neighbour_before_anything_starts():
    done = runner.invoke(cli.app, ["run", str(ROOT / "configs/smoke.yaml"), "--set", "silos.cuont=3"])
    assert done.exit_code == 2
    assert "silos.cuont" in done.stderr
    assert "'count'" in done.stderr


def test_help_says_where_to_begin():
    assert "New here? fedcpsc init writes a configuration" in runner.invoke(cli.app, []).output


@pytest.mark.parametrize(
    ("words", "meant"), [(["rnu"], "run"), (["ledger", "sohw"], "show"), (["deploy", "chek"], "check")]
)
def test_a_misspelt_command_is_named_with_its_neighbour_once(words, meant):
    done = runner.invoke(cli.app, words)
    assert done.exit_code == 2
    assert done.output.count("Did you mean") == 1
    assert f"Did you mean '{meant}'?" in done.output


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("digits", "did you mean configs/digits.yaml?"),
        ("config/digits.yaml", "did you mean configs/digits.yaml?"),
        ("mine.yml", "did you mean mine.yaml?"),
        ("nothing-like-it.yaml", "check the path, or write one: fedcpsc init FILE.yaml"),
    ],
)
def test_a_file_that_is_not_there_is_answered_with_the_one_that_was_meant(tmp_path, monkeypatch, given, remedy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("mine.yaml", "configs/digits.yaml", "configs/mnist.yaml"):
        (tmp_path / name).write_text("seed: 1\n")
    done = runner.invoke(cli.app, ["run", given])
    assert done.exit_code == 2
    assert done.stderr.strip() == f"config error: file={given!r}: is not there; {remedy}"
