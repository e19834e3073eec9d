# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc run --local`: real silos, a real engine, everything but Flower."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from support.picture_sources import pictures, png
from support.tiny_runs import SMOKE, TINY_SMOKE
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.commands.run_command import Request, run_once, run_seeds, with_absolute_paths
from fedcpsc.errors import DataError, RunError
from fedcpsc.runs.claim import Existing


@pytest.fixture
def console(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Console(file=io.StringIO(), width=140)


def tiny(*overrides, existing=Existing.REFUSE):
    return Request(SMOKE, (*TINY_SMOKE, *overrides), existing, local=True)


def test_a_local_run_leaves_what_any_run_leaves_and_is_kept(console):
    result = run_once(tiny(), console)
    assert json.loads(Path("runs/smoke/result.json").read_text()) == result
    assert [silo["answers"] for silo in result["silos"]] == [40, 40]
    assert "round 2/2" in console.file.getvalue()
    with pytest.raises(RunError, match="holds a finished run"):
        run_once(tiny(), console)
    assert run_once(tiny(existing=Existing.RESUME), console) == result
    with pytest.raises(RunError, match="another configuration.*answers_per_silo"):
        run_once(tiny("queries.answers_per_silo=50", existing=Existing.RESUME), console)
    anew = run_once(tiny(existing=Existing.OVERWRITE), console)
    assert anew["silos"][0]["answers_left"] == result["silos"][0]["answers_left"] - 40  # the ledger forgets nothing
    assert Path("runs/smoke.previous/result.json").exists()


def test_what_an_operator_should_know_is_told_beside_the_rounds(console):
    run_once(tiny("silos.count=3", "aggregation.exclude=[silo-1]"), console)
    assert "smoke: silo-1 is excluded: not asked" in console.file.getvalue()


def test_each_seed_has_silos_and_a_run_of_its_own(console):
    summary = run_seeds(tiny("seed=3"), 2, console)
    assert summary["seeds"] == [3, 4]
    assert json.loads(Path("runs/smoke-seeds.json").read_text()) == summary
    for seed in (3, 4):
        result = json.loads(Path(f"runs/smoke-seed{seed}/result.json").read_text())
        assert result["seed"] == seed
        assert result["student"]["accuracy"] == summary["student"]["values"][seed - 3]
        assert Path(f"silos/smoke-seed{seed}/1/manifest.json").exists()


def test_paths_of_data_and_public_pictures_are_made_absolute_for_processes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given = tiny("data.path=mine", "synthesis.public={path: ~/pile, source: parquet}")
    config = with_absolute_paths(given).load()
    assert config.data.path == str(tmp_path / "mine")
    assert config.synthesis.public.path == str(tmp_path / "home/pile")
    assert config.synthesis.public.source == "parquet"
    assert with_absolute_paths(tiny()).load().synthesis.public is None


def test_public_pictures_are_looked_for_before_silos_are_trained_and_what_was_read_is_shown(console, tmp_path):
    pile = tmp_path / "pile"
    pile.mkdir()
    given = f"synthesis.public={{path: {pile}}}"
    with pytest.raises(DataError, match="0 pictures were found there"):
        run_once(tiny(given), console)
    assert not Path("silos").exists()
    for i, pixels in enumerate(pictures(12)):
        (pile / f"{i}.png").write_bytes(png(pixels))
    result = run_once(tiny(given), console)
    assert result["real_pictures"][0]["images"] == 20
    assert "the server's own pictures, without labels: 12, from" in console.file.getvalue()


def set_options(values):
    """`--set` for each key and its value."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def test_an_unfinished_run_is_not_resumed_with_another_configuration_and_its_silos_stay(console, monkeypatch):
    def stops(*ignored):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fedcpsc.distillation.run.leave", stops)  # after the rounds, before the result
        with pytest.raises(KeyboardInterrupt):
            run_once(tiny(), console)
    before = {path: path.read_bytes() for path in Path("silos").rglob("*") if path.is_file()}
    changed = {"teachers.epochs": "2", "student.steps_per_round": "3"}
    same = [str(SMOKE), "--local", "--resume", *set_options(dict(item.split("=", 1) for item in TINY_SMOKE))]
    other = [*same[:3], *set_options(dict(item.split("=", 1) for item in TINY_SMOKE) | changed)]
    done = CliRunner().invoke(app, ["run", *other])
    assert done.exit_code == 1
    assert "began with another configuration" in done.stderr
    assert "teachers.epochs: 1 -> 2; student.steps_per_round: 2 -> 3" in done.stderr
    assert {path: path.read_bytes() for path in Path("silos").rglob("*") if path.is_file()} == before
    assert CliRunner().invoke(app, ["run", *same]).exit_code == 0
    assert json.loads(Path("runs/smoke/result.json").read_text())["answers_per_silo"] == 40
