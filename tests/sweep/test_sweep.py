# SPDX-License-Identifier: Apache-2.0
"""What an earlier attempt left is gone on with, added to, moved aside or refused; never mixed."""

import pytest

from fedcpsc.errors import ConfigError, RunError
from fedcpsc.files import write_whole
from fedcpsc.runs.claim import worked_on_alone
from fedcpsc.runs.layout import CONFIG_FILE
from fedcpsc.sweep import run as sweep_run
from fedcpsc.sweep.folder import begun_runs, left_out, take_up
from fedcpsc.sweep.layout import PLAN_FILE, SWEEP_FILE
from fedcpsc.sweep.made_silos import copy_made, make_once, silos_key
from fedcpsc.sweep.run import check_runs, run_sweep
from fedcpsc.sweep.schedule import Outcome
from fedcpsc.teachers.manifest import MANIFEST_FILE, load_manifest, save_manifest
from fedcpsc.typed_yaml import save_config

TINY = ["data.train_limit=60", "data.test_limit=20", "teachers.epochs=1"]


def begin(run):
    """What a run leaves first."""
    run.folder.mkdir(parents=True)
    save_config(run.config, run.folder / CONFIG_FILE)


@pytest.fixture
def nothing_runs(monkeypatch):
    """Instead of processes: the tasks that would have been done, all of which fail."""
    seen = []

    def work(tasks, folder, jobs, watch):
        seen.append((tasks, jobs))
        return {task.name: Outcome(1.0, "DataError: none") for task in tasks}

    monkeypatch.setattr(sweep_run, "work", work)
    return seen


def test_settings_and_seeds_may_be_added_or_left_out_between_attempts(planned):
    before = planned(seeds=[1])
    take_up(before)
    begin(before.runs[0])
    more = planned(settings={"entropy": {"aggregation.rule": "entropy"}, "wide": {"student.width": 9}}, seeds=[1, 2])
    take_up(more)
    assert begun_runs(more) == {}
    assert left_out(more) == ["uniform-seed1"]
    take_up(planned())
    assert list(begun_runs(planned())) == ["uniform-seed1"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": {"uniform": {"student.width": 5}}}, r"uniform-seed1 \(student.width: 8 -> 5\)"),
        ({"settings": {"uniform": {"aggregation.exclude": ["silo-1"]}}}, "aggregation.exclude"),
        ({"set": ["queries.rounds=2"]}, "queries.rounds: 4 -> 2"),
        ({"overrides": ["data.train_limit=77"]}, "data.train_limit: None -> 77"),
    ],
)
def test_a_setting_that_changed_under_its_name_is_refused(planned, changed, words):
    before = planned()
    take_up(before)
    begin(before.runs[0])
    with pytest.raises(RunError, match=f"{words}.*another name.*--overwrite"):
        take_up(planned(**changed))


def test_places_and_speed_may_change(planned):
    before = planned()
    take_up(before)
    begin(before.runs[0])
    take_up(planned(set=["runtime.threads=2", "output.tensorboard=true"]))


def test_a_folder_that_holds_something_else_is_left_alone(planned, nothing_runs):
    sweep = planned()
    sweep.folder.mkdir()
    (sweep.folder / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds no sweep, but thesis.tex; choose another folder with --out"):
            run_sweep(sweep, overwrite=overwrite)
    assert [path.name for path in sweep.folder.iterdir()] == ["thesis.tex"]
    assert nothing_runs == []


def test_an_earlier_sweep_is_moved_aside_where_asked(planned, nothing_runs):
    run_sweep(planned())
    begin(planned().runs[0])
    run_sweep(planned(settings={"uniform": {"student.width": 5}}), overwrite=True)
    folder = planned().folder
    assert (folder.with_name("sweep.previous") / "runs/uniform-seed1" / CONFIG_FILE).exists()
    assert (folder / PLAN_FILE).exists()
    assert not (folder / "runs/uniform-seed1").exists()


def test_two_do_not_work_on_one_sweep(planned, nothing_runs):
    sweep = planned()
    with worked_on_alone(sweep.folder), pytest.raises(RunError, match="another process works on it"):
        run_sweep(sweep)


def test_what_failed_is_in_the_result_and_leaves_a_table(planned, nothing_runs):
    told = []
    result = run_sweep(planned(), jobs=2, tell=told.append)
    assert told == ["2 settings x 3 seeds = 6 runs; 3 sets of silos to make, 2 processes at a time"]
    assert len(result.failures) == 9
    assert {row.state for row in result.rows} == {"failed"}
    assert (planned().folder / SWEEP_FILE).exists()
    assert nothing_runs[0][1] == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"settings": {"a": {}, "b": {"teachers.architecture": "convnte"}}}, "setting 'b': .*'convnte'.*'convnet'"),
        ({"settings": {"b": {"student.architecture": "convnte"}}}, "setting 'b': .*'convnte'.*'convnet'"),
        ({"settings": {"b": {"silos.policy.answer": 3}}}, "setting 'b': .*answer.*'answers'"),
        ({"settings": {"b": {"teachers.training": {"kind": "dp"}}}}, "setting 'b': .*training"),
        ({"settings": {"b": {"silos.policy.high_water_mark": "/var/m"}}}, "setting 'b': .*copies of the silo"),
    ],
)
def test_what_only_the_making_of_silos_would_show_is_found_before(planned, nothing_runs, keys, words):
    with pytest.raises(ConfigError, match=words):
        run_sweep(planned(**keys))
    assert not planned().folder.exists()


def test_silos_that_an_owner_keeps_are_not_swept(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = planned(set=TINY).runs[0].config
    make_once(config, tmp_path / "silos/smoke", lambda line: None)
    check_runs(planned())
    mine = tmp_path / "silos/smoke/1"
    save_manifest(load_manifest(mine).model_copy(update={"origin": "adopted"}), mine)
    with pytest.raises(ConfigError, match=r"adopted teachers \(silo-1\); sweep over silos that are trained here"):
        check_runs(planned())


def test_silos_of_other_data_than_earlier_runs_had_are_refused(planned, tmp_path):
    config, folder = planned(set=TINY).runs[0].config, tmp_path / "made"
    lines = []
    make_once(config, folder, lines.append)
    make_once(config, folder, lines.append)
    assert [("made in" in line, "reused" in line) for line in lines if "private images" in line] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]
    other = planned(set=[*TINY, "data.test_share=0.5"]).runs[0].config
    for _ in range(2):  # at every attempt, not only the first
        with pytest.raises(RunError, match="the data changed since"):
            make_once(other, folder, lines.append)


def test_each_run_has_copies_and_what_is_there_already_stays(planned, tmp_path):
    sweep = planned(set=TINY, seeds=[1])
    one, other = sweep.runs
    assert silos_key(one.config) == silos_key(other.config)
    make_once(one.config, tmp_path / "made", lambda line: None)
    copy_made(tmp_path / "made", one.silos, 2)
    copy_made(tmp_path / "made", other.silos, 2)
    write_whole(one.silos / "0/note.txt", "kept")
    copy_made(tmp_path / "made", one.silos, 2)
    assert (one.silos / "0/note.txt").exists()
    assert all((run.silos / str(silo) / MANIFEST_FILE).exists() for run in sweep.runs for silo in range(2))


def test_a_begun_run_is_fitted_to_shared_answers_only_where_it_was_before(planned, tmp_path):
    before = planned()
    take_up(before)
    begin(before.runs[0])
    (before.runs[0].folder / "bank").mkdir()
    with pytest.raises(RunError, match=r"uniform-seed1 \(answers: own -> shared\)"):
        take_up(planned(answers="shared"))
