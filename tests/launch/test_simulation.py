# SPDX-License-Identifier: Apache-2.0
"""What is told of a run that ended badly. That it runs at all is shown by the e2e tests."""

import json

import pytest
from support.run_results import line, result

from fedcpsc.errors import ConfigError, FederationError, RunError
from fedcpsc.launch import simulation
from fedcpsc.launch.flower_commands import RunStatus
from fedcpsc.launch.simulation import run_simulation

COMPLETED, FAILED = RunStatus("finished:completed", ""), RunStatus("finished:failed", "No heartbeat")
WHOLE = json.dumps(result(seed=2))


class FakeLink:
    """A SuperLink whose run ends at once, having left some files."""

    files: dict[str, str] = {}  # noqa: RUF012
    status_now = COMPLETED
    submitted: list[tuple] = []  # noqa: RUF012

    def __init__(self, run_dir):
        self.run_dir, self.home, self.flower = run_dir, run_dir.parent / "home", self
        self.home.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, app_folder, run_config, federation):
        self.submitted.append((run_config.read_text(), federation, sorted(p.name for p in app_folder.iterdir())))
        return "1"

    def follow(self, run_id, log):
        for name, text in self.files.items():
            (self.run_dir / name).write_text(text)
        return self

    def poll(self):
        return 0

    def status(self, run_id):
        return self.status_now


@pytest.fixture
def link(monkeypatch):
    made = type("Link", (FakeLink,), {"files": {}, "submitted": []})
    monkeypatch.setattr(simulation, "SuperLink", made)
    return made


@pytest.fixture
def go(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 1\n")

    def run(on_line=lambda line: None):
        given = (tmp_path / "run.yaml", ["seed=2"], tmp_path / "run", tmp_path / "silos", 3)
        return run_simulation(*given, resume=False, on_line=on_line)

    return run


def test_a_completed_run_gives_its_result_and_its_lines(link, go):
    seen = []
    link.files = {"result.json": WHOLE, "metrics.jsonl": json.dumps(line(round=1)) + "\n"}
    assert go(seen.append)["seed"] == 2
    assert [one["round"] for one in seen] == [1]


def test_every_silo_is_a_node_with_one_cpu_and_the_app_is_whole(link, go, tmp_path):
    link.files = {"result.json": WHOLE}
    go()
    ((run_config, federation, app),) = link.submitted
    assert "num-supernodes=3 client-resources-num-cpus=1" in federation
    assert f'outdir = "{tmp_path / "run"}"' in run_config
    assert f'silos = "{tmp_path / "silos"}"' in run_config
    assert 'overrides = "seed=2"' in run_config
    assert app == ["clients", "configs", "fedcpsc", "pyproject.toml", "server"]


def test_a_failed_run_raises_the_servers_own_error(link, go):
    link.files, link.status_now = {"error.txt": "FederationError: too few joined: 1\n"}, FAILED
    with pytest.raises(FederationError, match=r"^too few joined: 1$"):
        go()


def test_a_wrong_configuration_stays_one(link, go):
    link.files, link.status_now = {"error.txt": "ConfigError: seed=-1: must be >= 0\n"}, FAILED
    with pytest.raises(ConfigError, match="seed"):
        go()


@pytest.mark.parametrize("foreign", ["ZeroDivisionError: division by zero", "explain: x", "FedcpscThing"])
def test_a_foreign_error_is_a_failed_run_that_names_it_and_the_log(link, go, foreign):
    link.files, link.status_now = {"error.txt": foreign}, FAILED
    with pytest.raises(RunError, match="flower.log") as raised:
        go()
    assert foreign.partition(":")[0] in str(raised.value)


def test_a_run_that_died_without_a_word_is_a_failed_run(link, go):
    link.status_now = FAILED
    with pytest.raises(RunError, match="No heartbeat"):
        go()


def test_a_completed_run_without_a_result_is_a_failed_run(link, go):
    with pytest.raises(RunError, match="finished:completed"):
        go()


def test_a_run_that_failed_after_its_result_is_a_failed_run(link, go):
    link.files, link.status_now = {"result.json": WHOLE}, FAILED
    with pytest.raises(RunError, match="finished:failed"):
        go()


def test_the_reason_of_an_earlier_failure_is_forgotten(link, go, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "error.txt").write_text("ConfigError: old")
    link.files = {"result.json": WHOLE}
    go()
    assert not (tmp_path / "run" / "error.txt").exists()
