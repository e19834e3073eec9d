# SPDX-License-Identifier: Apache-2.0
"""Another student of the answers that a run has banked: nobody is asked, and that run is only read."""

import fcntl
import json
import os

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.kept_runs import a_run, assert_same_student, changed, files_of
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import BankError, ConfigError, RefusalCode, RunError
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.claim import Existing
from fedcpsc.runs.config_changes import changed_values
from fedcpsc.runs.read import gather

WAYS = {
    "by default": {},
    "three silos, judged": {"silos__count": 3},
    "a rule that learns from answers": {"aggregation__rule": "answer_peak_log", "aggregation__robust": False},
    "rounds that overlap": {"queries__ahead": 2, "queries__in_flight": 2, "queries__rounds": 6},
    "an average of weights": {"student__average": 0.9, "student__fresh_share": 0.5},
    "a final fit of no steps": {"student__final_steps": 0},
    "one network alone": {"student__committee": 1},
}


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_the_same_configuration_gives_the_runs_student_weight_by_weight(tmp_path, changes):
    config = tiny_config(**changes)
    result, fakes = a_run(tmp_path / "run", config)
    before, calls = files_of(tmp_path / "run"), [fake.calls for fake in fakes]
    again = refit(tmp_path / "run", config, tmp_path / "refit", evaluation=evaluation())
    assert_same_student(tmp_path / "run", tmp_path / "refit")
    assert [fake.calls for fake in fakes] == calls, "no silo is asked anything"
    assert files_of(tmp_path / "run") == before, "the run is only read"
    assert again["student"] == result["student"]
    told = [[line.get("student_accuracy") for line in gather(tmp_path / name).lines] for name in ("run", "refit")]
    assert told[0] == told[1]


def test_round_groups_of_several_rounds_are_worked_through_as_they_were_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("fedcpsc.distillation.loop.next_size", lambda size, **_: min(2 * size, 3))
    config = tiny_config(queries__rounds=12, queries__ahead=1, queries__waiting_goal=0.05)
    a_run(tmp_path / "run", config)
    assert len(gather(tmp_path / "run").bank.group_ends) < 12
    refit(tmp_path / "run", config, tmp_path / "refit")
    assert_same_student(tmp_path / "run", tmp_path / "refit")


def test_it_is_a_whole_runs_folder_that_says_where_its_answers_came_from(tmp_path):
    config = tiny_config()
    facts = {f"silo-{i}": SiloFacts(100 + i, brightness_probabilities) for i in range(2)}
    a_run(tmp_path / "first", config, silo_facts=facts)
    other = changed(config, student__width=8, student__architecture="convnet_gn", output__name="second")
    result = refit(tmp_path / "first", other, tmp_path / "second", evaluation=evaluation(), silo_facts=facts)
    run = gather(tmp_path / "second")
    assert run.result == result
    assert changed_values(run.config, other) == {}  # but for what is left to the machine
    assert result["refit"] is True
    (origin,) = result["earlier_runs"]
    assert origin["run"] == "test"
    assert origin["folder"] == str(tmp_path / "first")
    assert (origin["finished"], origin["images"]) == (True, 120)
    assert origin["answers"] == {"silo-0": 120, "silo-1": 120}
    assert [(silo["answers"], silo["answers_here"]) for silo in result["silos"]] == [(120, 0), (120, 0)]
    assert result["bytes_sent"] == result["bytes_received"] == 0
    assert result["ensemble"]["accuracy"] == 1.0
    assert result["student"]["architecture"] == "convnet_gn"
    for name in ("details.json", "samples.png", "curve.png", "descriptions.json", "timeline.jsonl"):
        assert (tmp_path / "second" / name).stat().st_size > 0, name
    used = [line["answers_used"] for line in run.rounds]
    assert used == [30, 60, 90, 120], "the curve shows how many answers each round had"


def test_a_refit_of_a_refit_names_the_run_that_paid(tmp_path):
    config = tiny_config()
    a_run(tmp_path / "first", config)
    refit(tmp_path / "first", changed(config, student__width=8, output__name="second"), tmp_path / "second")
    third = refit(tmp_path / "second", changed(config, output__name="third"), tmp_path / "third")
    assert [origin["run"] for origin in third["earlier_runs"]] == ["test"]
    assert_same_student(tmp_path / "first", tmp_path / "third")


def test_the_bank_it_leaves_holds_the_same_answers_under_the_same_ids(tmp_path):
    a_run(tmp_path / "run", tiny_config())
    refit(tmp_path / "run", tiny_config(), tmp_path / "refit")
    one, other = gather(tmp_path / "run").bank, gather(tmp_path / "refit").bank
    assert other.check_sums()
    assert other.batches == one.batches
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.pseudo_labels, other.pseudo_labels)
    np.testing.assert_array_equal(one.targets, other.targets)
    for mine, theirs in zip(one.batches, other.batches, strict=True):
        np.testing.assert_array_equal(one.answers(mine)[0], other.answers(theirs)[0])
    heads = [
        json.loads((tmp_path / name / "bank/journal.jsonl").read_text().splitlines()[0]) for name in ("run", "refit")
    ]
    assert heads[0]["nonce"] != heads[1]["nonce"]
    assert (tmp_path / "refit/bank").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "refit/bank").iterdir()} == {0o600}


def test_an_unfinished_run_is_fitted_to_what_is_there(tmp_path):
    def misbehave(query, count):
        if count == 3:
            raise KeyboardInterrupt

    config, told = tiny_config(), []
    with pytest.raises(KeyboardInterrupt):
        a_run(tmp_path / "run", config, [FakeSilo("silo-0", misbehave=misbehave), FakeSilo("silo-1")])
    result = refit(tmp_path / "run", config, tmp_path / "refit", tell=told.append)
    assert [silo["answers"] for silo in result["silos"]] == [60, 60]
    assert any("has not finished" in line and "120 images" in line for line in told)
    assert result["earlier_runs"][0]["finished"] is False
    assert gather(tmp_path / "refit").lines[-1]["share_done"] == 1.0


def test_excluded_silos_are_left_out_and_can_be_taken_in_again(tmp_path):
    config = tiny_config(silos__count=3)
    liar = FakeSilo("silo-2", teacher=lambda images: np.eye(3, dtype=np.float32)[np.zeros(len(images), int)])
    a_run(tmp_path / "run", config, [FakeSilo("silo-0"), FakeSilo("silo-1"), liar])
    without = changed(config, aggregation__exclude=["silo-2"])
    result = refit(tmp_path / "run", without, tmp_path / "without")
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    assert result["excluded"] == ["silo-2"]
    refit(tmp_path / "without", config, tmp_path / "again")
    assert_same_student(tmp_path / "run", tmp_path / "again")
    with pytest.raises(ConfigError, match="holds those of silo-0, silo-1, silo-2"):
        refit(tmp_path / "run", changed(config, aggregation__exclude=["silo-9"]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_class_that_excluded_silos_alone_know_is_not_given_up(tmp_path):
    names = ("cat", "dog"), ("dog", "emu")
    silos = [
        FakeSilo(f"silo-{i}", classes=2, class_names=own, teacher=lambda images: brightness_probabilities(images, 2))
        for i, own in enumerate(names)
    ]
    config = tiny_config()
    distill(config, LocalTransport(silos), tmp_path / "run")
    with pytest.raises(ConfigError, match="excluded silos alone know the others"):
        refit(tmp_path / "run", changed(config, aggregation__exclude=["silo-1"]), tmp_path / "refit")
    refit(tmp_path / "run", config, tmp_path / "refit")
    assert_same_student(tmp_path / "run", tmp_path / "refit")


REFUSED = {
    "queries__answers_per_silo": 240,
    "queries__rounds": 2,
    "queries__form": "best",
    "synthesis__candidates": 2,
    "data__train_limit": 10,
    "silos__count": 3,
}


@pytest.mark.parametrize(("key", "value"), REFUSED.items())
def test_what_does_not_concern_the_fit_is_refused_with_the_way_to_have_it(tmp_path, key, value):
    a_run(tmp_path / "run", tiny_config())
    with pytest.raises(ConfigError, match=f"{key.replace('__', r'.')}.*fedcpsc run --from"):
        refit(tmp_path / "run", changed(tiny_config(), **{key: value}), tmp_path / "refit")
    assert not (tmp_path / "refit").exists()


def test_how_answers_were_read_cannot_be_changed_afterwards(tmp_path):
    a_run(tmp_path / "run", tiny_config())
    with pytest.raises(ConfigError, match="the banked answers were read by it"):
        refit(tmp_path / "run", changed(tiny_config(), aggregation__denoise=False), tmp_path / "refit")


def test_a_student_that_cannot_be_fitted_is_refused_before_anything_is_written(tmp_path):
    a_run(tmp_path / "run", tiny_config())
    with pytest.raises(ConfigError, match="architecture"):
        refit(tmp_path / "run", changed(tiny_config(), student__architecture="resnet9000"), tmp_path / "refit")
    assert not (tmp_path / "refit").exists()


def test_what_is_no_run_or_has_no_answers_is_explained(tmp_path):
    def refuse(query, count):
        return RefusalCode.BUDGET

    config = tiny_config()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is not the folder of a run"):
        refit(tmp_path / "empty", config, tmp_path / "refit")
    with pytest.raises(Exception, match="no silo answered"):
        a_run(tmp_path / "silent", config, [FakeSilo(f"silo-{i}", misbehave=refuse) for i in range(2)])
    with pytest.raises(RunError, match="has banked no answers"):
        refit(tmp_path / "silent", config, tmp_path / "refit")
    a_run(tmp_path / "run", config)
    with pytest.raises(RunError, match="cannot begin with its own answers"):
        refit(tmp_path / "run", config, tmp_path / "run", existing=Existing.OVERWRITE)
    assert gather(tmp_path / "run").result is not None


def test_a_damaged_bank_is_refused_and_nothing_is_overwritten(tmp_path):
    config = tiny_config()
    a_run(tmp_path / "run", config)
    refit(tmp_path / "run", config, tmp_path / "refit")
    path = tmp_path / "run/bank/answers-0.f32"
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    before = files_of(tmp_path / "refit")
    with pytest.raises(BankError, match="checksum"):
        refit(tmp_path / "run", config, tmp_path / "refit", existing=Existing.OVERWRITE)
    assert files_of(tmp_path / "refit") == before


def test_a_run_that_is_being_worked_on_is_not_read(tmp_path):
    config = tiny_config()
    a_run(tmp_path / "run", config)
    lock = os.open(tmp_path / "run/run.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process works on it"):
            refit(tmp_path / "run", config, tmp_path / "refit")
    finally:
        os.close(lock)
    assert not (tmp_path / "refit").exists()


def test_a_folder_that_is_taken_stays_unless_it_may_be_moved_aside(tmp_path):
    config = tiny_config()
    a_run(tmp_path / "run", config)
    refit(tmp_path / "run", config, tmp_path / "refit")
    with pytest.raises(RunError, match="holds a finished run already"):
        refit(tmp_path / "run", config, tmp_path / "refit")
    refit(tmp_path / "run", config, tmp_path / "refit", existing=Existing.OVERWRITE)
    assert gather(tmp_path / "refit.previous").result is not None
    (tmp_path / "mine/bank").mkdir(parents=True)
    (tmp_path / "mine/bank/notes.txt").write_text("my own")
    with pytest.raises(RunError, match="lies there already"):
        refit(tmp_path / "run", config, tmp_path / "mine")
    assert (tmp_path / "mine/bank/notes.txt").read_text() == "my own"


def test_a_refit_that_died_is_no_run_that_would_ask_silos_and_is_begun_again(tmp_path, monkeypatch):
    import fedcpsc.distillation.refit as module
    from fedcpsc.runs.claim import check_run_folder

    config = tiny_config()
    a_run(tmp_path / "run", config)

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_config", dies)  # the bank is there, the configuration is not
        with pytest.raises(KeyboardInterrupt):
            refit(tmp_path / "run", config, tmp_path / "refit")
    assert not (tmp_path / "refit/config.yaml").exists()
    with monkeypatch.context() as patched:
        patched.setattr(module, "_work_through", dies)
        with pytest.raises(KeyboardInterrupt):
            refit(tmp_path / "run", config, tmp_path / "refit")
    with pytest.raises(RunError, match="was made by fedcpsc refit, and is not gone on with"):
        check_run_folder(tmp_path / "refit", config, resume=True)
    refit(tmp_path / "run", config, tmp_path / "refit", existing=Existing.OVERWRITE)
    assert_same_student(tmp_path / "run", tmp_path / "refit")


def test_a_run_of_an_earlier_version_is_read_by_its_result(tmp_path):
    config = tiny_config(queries__form="label")
    silos = [FakeSilo(f"silo-{i}", forms=(AnswerForm.LABEL,)) for i in range(2)]
    a_run(tmp_path / "run", config, silos)
    (tmp_path / "run/descriptions.json").unlink()
    result = refit(tmp_path / "run", config, tmp_path / "refit")
    assert_same_student(tmp_path / "run", tmp_path / "refit")
    assert [silo["form"] for silo in result["silos"]] == ["label", "label"]
    (tmp_path / "run/result.json").unlink()
    with pytest.raises(RunError, match="do not say how silo-0, silo-1 answered"):
        refit(tmp_path / "run", config, tmp_path / "other")
