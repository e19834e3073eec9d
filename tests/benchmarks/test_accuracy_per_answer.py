# SPDX-License-Identifier: Apache-2.0
"""The accuracy benchmark makes of a sweep's runs the rows that the tables read."""

import json
from types import SimpleNamespace

import pytest
from support.documented import ROOT
from support.run_results import result

from benchmarks import accuracy_per_answer
from benchmarks.accuracy_per_answer import Recorder, main, plan_of
from benchmarks.tables.accuracy import accuracy_table
from fedcpsc.plain_yaml import dump_plain
from fedcpsc.sweep.expand import expand
from fedcpsc.sweep.plan import load_plan
from fedcpsc.typed_yaml import save_config

PLAN = {
    "config": str(ROOT / "configs/mnist.yaml"),
    "name": "tiny",
    "set": ["data.path={data}/mnist"],
    "seeds": [1, 2],
    "settings": {
        "one teacher": {
            "silos.count": 1,
            "silos.partition.kind": "iid",
            "aggregation.rule": "uniform",
            "data.path": "{data}/other",
        },
        "labels": {"queries.form": "label", "silos.policy.forms": ["label"]},
    },
}


@pytest.fixture
def path(tmp_path):
    """File of a plan in which the folder of the data sets is left open."""
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_plain(PLAN))
    return path


def end(run, student):
    """Leaves the result of a finished run."""
    run.folder.mkdir(parents=True, exist_ok=True)
    save_config(run.config, run.folder / "config.yaml")
    (run.folder / "result.json").write_text(json.dumps(result(run.seed, student) | {"device": "cpu"}))


def test_the_folder_of_the_data_sets_is_filled_in_and_settings_are_chosen_by_name(path):
    plan = plan_of(path, "/data", only="label")
    assert plan.set == ("data.path=/data/mnist",)
    assert list(plan.settings) == ["labels"]


def test_a_row_is_written_as_soon_as_a_setting_has_all_its_seeds_and_has_the_keys_of_every_row(path, tmp_path):
    sweep = expand(plan_of(path, "/data"), tmp_path / "sweep")
    out = tmp_path / "rows.json"
    recorder = Recorder(load_plan(path), sweep, out, commit="abc", data="/data")
    one = [run for run in sweep.runs if run.setting.name == "one teacher"]
    end(one[0], 0.90)
    recorder.record(one[0].setting)
    assert not out.exists()
    end(one[1], 0.92)
    recorder.record(one[1].setting)
    (row,) = json.loads(out.read_text())
    measured = json.loads((ROOT / "benchmarks/results/accuracy_per_answer.json").read_text())
    assert set(row) == set(measured[0]) | {"passes"}  # which were float32 in all rows before
    assert (row["setting"], row["mean"], row["std"], row["each"]) == ("one teacher", 91.0, 1.41, [90.0, 92.0])
    assert (row["seeds"], row["split"], row["commit"], row["alpha"]) == ([1, 2], "test", "abc", None)
    assert row["set"] == [
        "data.path={data}/mnist",
        "silos.count=1",
        "silos.partition.kind=iid",
        "aggregation.rule=uniform",
        "data.path={data}/other",
    ]
    assert accuracy_table([row])[-1].startswith("| one teacher | 1 |")


def test_a_run_that_asks_for_all_settings_has_no_row(path, tmp_path):
    own = PLAN | {"settings": {"default": {}, "mixup": {"student.mixup": 0.2}}, "answers": "shared"}
    path.write_text(dump_plain(own))
    sweep = expand(plan_of(path, "/data"), tmp_path / "sweep")
    recorder = Recorder(load_plan(path), sweep, tmp_path / "rows.json")
    recorder.record(sweep.banks[0].setting)
    assert recorder.rows == {}


def test_what_was_done_before_is_recorded_too_and_a_failure_is_the_exit_code(path, tmp_path, monkeypatch, capsys):
    def all_but_one(sweep, **given):
        for run in sweep.runs[:-1]:
            end(run, 0.9)
        return SimpleNamespace(failures={sweep.runs[-1].name: "DataError: gone"})

    monkeypatch.setattr(accuracy_per_answer, "run_sweep", all_but_one)
    out = tmp_path / "rows.json"
    arguments = ["x", str(path), "--data", "/data", "--out", str(out), "--sweeps", str(tmp_path / "sweeps")]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 1
    assert [row["setting"] for row in json.loads(out.read_text())] == ["one teacher"]
    assert "90.00 +- 0.00" in capsys.readouterr().out
