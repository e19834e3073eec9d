# SPDX-License-Identifier: Apache-2.0
"""Every run leaves its page, whoever carried it out; a page that cannot be drawn fails no run."""

import os
import subprocess
import sys

import pytest
from flwr.app import Context, RecordDict
from support.documented import ROOT
from support.fakes import FakeSilo
from support.inproc_grid import InProcGrid
from support.tiny_runs import tiny_config

import clients.app
import server.app
from fedcpsc.app_config import AppConfig
from fedcpsc.launch.app_folder import stage_app
from fedcpsc.report.after_run import draw, draw_apart, is_drawn
from fedcpsc.typed_yaml import save_config


@pytest.mark.parametrize("draws", [draw, draw_apart])
def test_the_page_is_drawn_in_this_process_or_in_one_of_its_own(run, draws):
    (run / "report.html").unlink(missing_ok=True)
    assert draws(run) is None
    assert is_drawn(run)
    assert "Run thirty" in (run / "report.html").read_text()


@pytest.mark.parametrize("draws", [draw, draw_apart])
def test_a_page_that_cannot_be_drawn_is_a_sentence_with_the_reason_and_the_command(tmp_path, draws):
    said = draws(tmp_path / "nothing")
    assert "is not the folder of a run" in said
    assert said.endswith(f"the run is complete; try again with: fedcpsc report {tmp_path / 'nothing'}")


def test_a_page_of_an_earlier_result_is_none(run):
    draw(run)
    os.utime(run / "report.html", (1_000_000_000, 1_000_000_000))
    assert not is_drawn(run)


def test_flowers_copy_of_the_app_has_the_installed_package_draw(run, tmp_path):
    stage_app(tmp_path / "app", ROOT / "configs/smoke.yaml")
    (run / "report.html").unlink(missing_ok=True)
    code = (
        f"from fedcpsc.report.after_run import draw_apart as d; from pathlib import Path; print(d(Path({str(run)!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "app"), str(ROOT)])}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    assert is_drawn(run)


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_by_flower_alone_leaves_its_page_and_ends_well_without(tmp_path, monkeypatch, capsys, broken):
    if broken:
        monkeypatch.setattr(server.app.draw_apart.__module__ + ".sys.executable", str(tmp_path / "no-python"))
    silos = [FakeSilo("silo-0"), FakeSilo("silo-1")]
    monkeypatch.setattr(clients.app, "target_of", lambda node, run, app, group: silos[node["which"]])
    save_config(tiny_config(), tmp_path / "run.yaml")
    given = AppConfig(str(tmp_path / "run.yaml"), outdir=str(tmp_path / "out"))
    grid = InProcGrid(clients.app.app, [{"which": number} for number in range(2)])
    server.app.app(grid, Context(1, 0, {}, RecordDict(), vars(given)))
    grid.close()
    said = capsys.readouterr().out
    assert (tmp_path / "out/result.json").exists()
    assert (tmp_path / "out/report.html").exists() is not broken
    words = "could not be drawn (FileNotFoundError); the run is complete" if broken else "the whole run on one page: "
    assert words in said
