# SPDX-License-Identifier: Apache-2.0
"""The ServerApp before the first hello, and what it leaves when it fails."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from support.inproc_grid import InProcGrid

import server.app
from fedcpsc.app_config import AppConfig
from fedcpsc.errors import ConfigError, DataError, RunError
from fedcpsc.runs.claim import worked_on_alone
from server.app import is_simulation, prepare


class InMemoryGrid(InProcGrid):
    """Flower's name for the Grid of a simulation."""

    def __init__(self, nodes):
        super().__init__(lambda message, context: message, [{}] * nodes)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A run of three silos; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "silos: {count: 3, root: silos/x}\noutput: {name: x}\nqueries: {hello_timeout_s: 0.2}\n"
    )
    return AppConfig(str(tmp_path / "run.yaml"))


@pytest.fixture
def made(monkeypatch):
    """Silos asked for, in place of being made."""
    seen = []
    monkeypatch.setattr(server.app, "_make_silos", lambda given, silos: seen.append(silos))
    return seen


def with_(given, **changed):
    return AppConfig(**{**vars(given), **changed})


def test_a_deployment_has_no_folder_of_silos_and_makes_none(given, made):
    grid = InProcGrid(lambda message, context: message, [{}] * 2)
    assert not is_simulation(grid)
    plan = prepare(given, grid, run_id=7)
    assert (plan.silos, plan.config.silos.count, made) == (None, 3, [])


def test_a_plain_simulation_makes_its_silos_and_has_a_folder_of_its_own(given, made, tmp_path):
    assert is_simulation(InMemoryGrid(3))
    plan = prepare(given, InMemoryGrid(3), run_id=7)
    assert plan.silos == tmp_path / "silos/x"
    assert plan.run_dir == tmp_path / "runs/x-7"
    assert made == [tmp_path / "silos/x"]


@pytest.mark.parametrize("nodes", [1, 2, 10])
def test_a_simulation_has_the_configurations_silos_however_many_nodes_there_are(given, made, tmp_path, nodes):
    plan = prepare(given, InMemoryGrid(nodes), run_id=7)
    assert plan.config.silos.count == 3
    assert made == [tmp_path / "silos/x"]


def test_given_silos_are_taken_as_they_are(given, made, tmp_path):
    plan = prepare(with_(given, silos="/srv/silos", outdir=str(tmp_path / "out")), InMemoryGrid(3), run_id=7)
    assert (plan.silos, plan.run_dir, made) == (Path("/srv/silos"), tmp_path / "out", [])


def test_silos_that_cannot_be_made_end_the_run_with_the_reason(given):
    wrong = with_(given, overrides="silos.partition.kind=shards;silos.count=3;data.source=parquet")
    with pytest.raises(DataError, match=r"data\.path.*fedcpsc teachers"):
        prepare(wrong, InMemoryGrid(3), run_id=7)


def test_a_failure_is_raised_and_its_reason_left_in_the_runs_folder(given, made, tmp_path):
    run_config = {**vars(with_(given, outdir=str(tmp_path / "out"), overrides="seed=-1"))}
    context = Context(1, 0, {}, RecordDict(), run_config)
    with pytest.raises(ConfigError):
        server.app.app(InMemoryGrid(3), context)
    reason = (tmp_path / "out/error.txt").read_text()
    assert reason.startswith("ConfigError: ")
    assert "seed" in reason


def test_nobody_joins_and_the_run_ends_with_a_clear_error(given, made, tmp_path):
    context = Context(1, 0, {}, RecordDict(), vars(with_(given, outdir=str(tmp_path / "out"))))
    grid = InProcGrid(lambda message, context: message, [{}] * 3)
    grid.joined = 0
    with pytest.raises(Exception, match="must join within 0.2 s"):
        server.app.app(grid, context)
    assert (tmp_path / "out/error.txt").read_text().startswith("FederationError: ")


def test_an_attempt_beside_one_that_still_lives_is_refused_and_spoils_nothing(given, made, tmp_path):
    context = Context(1, 0, {}, RecordDict(), vars(with_(given, outdir=str(tmp_path / "out"))))
    with worked_on_alone(tmp_path / "out"), pytest.raises(RunError, match="another process works on it"):
        server.app.app(InMemoryGrid(3), context)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.lock"]


def test_a_run_told_to_stop_has_not_failed_and_lets_go_of_its_folder(given, made, tmp_path, monkeypatch):
    def stopped(plan, grid):
        raise KeyboardInterrupt

    monkeypatch.setattr(server.app, "run", stopped)
    context = Context(1, 0, {}, RecordDict(), vars(with_(given, outdir=str(tmp_path / "out"))))
    with pytest.raises(KeyboardInterrupt):
        server.app.app(InMemoryGrid(3), context)
    assert not (tmp_path / "out/error.txt").exists()
    with worked_on_alone(tmp_path / "out"):
        pass


def test_in_a_deployment_the_rounds_overlap_and_in_a_simulation_they_do_not(given, made):
    deployed = prepare(given, InProcGrid(lambda message, context: message, [{}] * 3), run_id=7).config.queries
    assert (deployed.ahead, deployed.in_flight, deployed.waiting_goal) == (2, 2, 0.05)
    simulated = prepare(given, InMemoryGrid(3), run_id=7).config.queries
    assert (simulated.ahead, simulated.in_flight, simulated.waiting_goal) == (None, None, None)


def test_a_simulation_takes_one_query_at_a_time(given, made):
    with pytest.raises(ConfigError, match=r"queries\.in_flight=2: must be 1 in a simulation"):
        prepare(with_(given, overrides="queries.in_flight=2"), InMemoryGrid(3), run_id=7)
