# SPDX-License-Identifier: Apache-2.0
"""`aggregation.exclude`: a silo that is left out is no part of the federation, also where it has answered before."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, FederationError, RefusalCode
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.checkpoint import read_state, write_state
from fedcpsc.runs.claim import finished
from fedcpsc.runs.read import gather

pytestmark = pytest.mark.slow  # whole runs

NAMES = ("silo-0", "silo-1", "silo-2")


def liar(images):
    """Says of every image another class than the others do, and is sure of it."""
    return np.eye(3, dtype=np.float32)[(brightness_probabilities(images, 3).argmax(1) + 1) % 3]


def silos(names=NAMES, **options):
    return [FakeSilo(name, teacher=liar if name == "silo-2" else None, **options) for name in names]


def config(exclude=(), **changes):
    return tiny_config(silos__count=3, aggregation__exclude=list(exclude), **changes)


class Joined(LocalTransport):
    """Keeps how many silos it was asked to wait for."""

    def __init__(self, targets):
        super().__init__(targets)
        self.counts = []

    def connect(self, count, timeout_s):
        self.counts.append(count)
        return super().connect(count, timeout_s)


def student(run):
    return load_file(run / "student.safetensors")


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A finished run of three silos, one of which lies. Not to be changed."""
    run = tmp_path_factory.mktemp("three") / "run"
    distill(config(), LocalTransport(silos()), run, evaluation=evaluation())
    return run


@pytest.fixture
def run(three, tmp_path):
    return shutil.copytree(three, tmp_path / "run")


def test_an_excluded_silo_is_neither_asked_nor_charged_nor_counted(tmp_path):
    fakes, told = silos(), []
    result = distill(config(["silo-2"]), LocalTransport(fakes), tmp_path / "run", tell=told.append)
    assert fakes[2].left == 10_000
    assert not fakes[2].queries
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-1"]
    assert result["excluded"] == ["silo-2"]
    assert result["not_joined"] == 0
    assert any("silo-2 is excluded" in line for line in told)
    assert read_bank(tmp_path / "run/bank").silos == ["silo-0", "silo-1"]


def test_a_run_without_a_silo_is_the_run_that_excludes_it_to_the_bit(tmp_path):
    distill(config(["silo-2"]), LocalTransport(silos()), tmp_path / "excluded")
    distill(tiny_config(silos__count=2), LocalTransport(silos(NAMES[:2])), tmp_path / "without")
    assert same(student(tmp_path / "excluded"), student(tmp_path / "without"))


def test_it_need_not_join_and_counts_for_no_quorum(tmp_path):
    told = []
    result = distill(config(["silo-2"]), LocalTransport(silos(NAMES[:2])), tmp_path / "run", tell=told.append)
    assert len(result["silos"]) == 2  # queries.quorum is 1: both that remain
    assert any("cannot be checked: 'silo-2'" in line for line in told)
    with pytest.raises(FederationError, match="at least 2 of 2 must join"):
        distill(config(["silo-2"]), LocalTransport(silos(["silo-0", "silo-2"])), tmp_path / "again")


def test_its_refusals_and_failures_hold_nobody_up(tmp_path):
    fakes = silos()
    fakes[2].misbehave = lambda query, count: RefusalCode.INTERNAL
    result = distill(config(["silo-2"]), LocalTransport(fakes), tmp_path / "run")
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]


@pytest.mark.parametrize(
    ("exclude", "error"),
    [
        (["silo-9"], r"aggregation\.exclude=\['silo-9'\]: no silo has this name; the 3 silos are 'silo-0', 'silo-1'"),
        (["silo-2", "Silo-1"], "'Silo-1'"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_is_charged_or_written(tmp_path, exclude, error):
    fakes = silos()
    with pytest.raises(ConfigError, match=error):
        distill(config(exclude), LocalTransport(fakes), tmp_path / "run")
    assert {fake.left for fake in fakes} == {10_000}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("exclude", [NAMES, ["silo-1", "silo-1"], [""], ["a", "b", "c", "d"]])
def test_excluding_every_silo_or_one_twice_is_refused_with_the_configuration(exclude):
    with pytest.raises(ConfigError, match="exclude"):
        config(exclude)


def test_excluding_all_that_joined_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="excludes every silo that has joined"):
        distill(config(["silo-0", "silo-1"]), LocalTransport(silos(NAMES[:2])), tmp_path / "run")


def test_a_finished_run_that_is_resumed_without_a_silo_is_fitted_anew(run):
    assert finished(run, config()) is not None
    assert finished(run, config(["silo-2"])) is None
    fakes, told = silos(), []
    distill(config(["silo-2"]), LocalTransport(fakes), run, evaluation=evaluation(), resume=True, tell=told.append)
    assert not any(fake.queries for fake in fakes), "all that remains was answered: nobody is asked anything"
    assert any("fitted anew" in line for line in told)
    facts = gather(run)
    assert [silo.id for silo in facts.silos] == ["silo-0", "silo-1"] == facts.bank.silos
    assert set(facts.details.weights) == {"silo-0", "silo-1"}
    clean = brightness_probabilities(np.array(facts.bank.images), 3)
    np.testing.assert_allclose(facts.bank.targets, clean, atol=5e-3)  # no trace of the liar's
    assert finished(run, config(["silo-2"])) is not None


def test_the_refitted_student_does_not_depend_on_what_the_excluded_silo_answered(three, tmp_path):
    """The same images and honest answers, with and without a liar's answers in the bank and in the checkpoint."""
    students = []
    for name, damage in (("lied", False), ("other lies", True)):
        run = shutil.copytree(three, tmp_path / name)
        if damage:  # another liar: other answers, and a checkpoint fitted to them
            state = read_state(run / "checkpoint")
            for member in state["members"]:
                for tensor in member["network"].values():
                    tensor.mul_(0)
            write_state(run / "checkpoint", state)
        distill(config(["silo-2"]), LocalTransport(silos()), run, resume=True)
        students.append(student(run))
    assert same(*students)
    assert not same(students[0], student(three))


def killed(query, count):
    if count > 4:
        raise KeyboardInterrupt


def test_a_run_cut_short_goes_on_without_the_silo_also_after_a_second_crash(tmp_path):
    run, fakes = tmp_path / "run", silos()
    fakes[0].misbehave = killed
    with pytest.raises(KeyboardInterrupt):
        distill(config(queries__rounds=8), LocalTransport(fakes), run)
    spent = fakes[2].left
    with pytest.raises(KeyboardInterrupt):  # before a checkpoint of the student fitted anew is written
        distill(config(["silo-2"], queries__rounds=8), LocalTransport(fakes), run, resume=True)
    fakes[0].misbehave = lambda query, count: None
    told = []
    transport = Joined(fakes[:2])  # it is gone, and known: nobody waits for it
    result = distill(config(["silo-2"], queries__rounds=8), transport, run, resume=True, tell=told.append)
    assert transport.counts == [2, 2]
    assert any("fitted anew" in line for line in told)
    assert fakes[2].left == spent
    assert [silo["answers"] for silo in result["silos"]] == [120, 120]
    assert read_bank(run / "bank").silos == list(NAMES), "its answers were paid for, and stay"


def test_a_silo_may_be_taken_in_again(run):
    distill(config(["silo-2"]), LocalTransport(silos()), run, resume=True)
    fakes = silos()
    result = distill(config(), LocalTransport(fakes), run, resume=True)
    assert [silo["answers"] for silo in result["silos"]] == [120, 120, 120]
    assert not any(fake.queries for fake in fakes)


def test_the_middle_silo_leaves_the_others_their_own_files(run):
    distill(config(["silo-1"], aggregation__rule="entropy"), LocalTransport(silos()), run / "../new")
    result = distill(config(["silo-1"]), LocalTransport(silos()), run, resume=True)
    assert [silo["id"] for silo in result["silos"]] == ["silo-0", "silo-2"]
    bank = gather(run).bank
    answers, given = bank.answers(bank.batches[0])
    images = np.array(bank.images[bank.batches[0].rows])
    np.testing.assert_allclose(answers[0], brightness_probabilities(images, 3), atol=5e-3)
    np.testing.assert_allclose(answers[1], liar(images), atol=5e-3)
    assert given.all()


def test_classes_that_only_the_excluded_silo_knows_are_told(tmp_path):
    fakes = [
        FakeSilo("silo-0", class_names=("cat", "dog", "eel")),
        FakeSilo("silo-1", class_names=("cat", "dog", "eel")),
        FakeSilo("silo-2", class_names=("cat", "dog", "fox")),
    ]
    distill(config(), LocalTransport(fakes), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="leaves 3 of the run's 4 classes.*begin a new run"):
        distill(config(["silo-2"]), LocalTransport(fakes), tmp_path / "run", resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_named_classes_that_all_know_stay(tmp_path):
    names = {"silo-0": ("cat", "dog", "eel"), "silo-1": ("cat", "dog", "eel"), "silo-2": ("eel", "cat", "dog")}
    fakes = [FakeSilo(name, class_names=own) for name, own in names.items()]
    distill(config(), LocalTransport(fakes), tmp_path / "run")
    result = distill(config(["silo-2"]), LocalTransport(fakes), tmp_path / "run", resume=True)
    assert result["class_names"] == ["cat", "dog", "eel"]


def test_nothing_else_of_the_configuration_may_change(run):
    with pytest.raises(Exception, match=r"aggregation\.rule"):
        distill(config(["silo-2"], aggregation__rule="entropy"), LocalTransport(silos()), run, resume=True)


def test_report_and_status_name_it(run):
    distill(config(["silo-2"]), LocalTransport(silos()), run, resume=True)
    runner = CliRunner()
    assert "excluded: silo-2" in runner.invoke(app, ["status", str(run)]).output
    assert json.loads(runner.invoke(app, ["status", str(run), "--json"]).output)["excluded"] == ["silo-2"]
    assert runner.invoke(app, ["report", str(run)]).exit_code == 0
    page = (run / "report.html").read_text()
    assert "2 of 3 joined, 1 excluded (silo-2)" in page
    assert "Excluded by the run&#39;s configuration" in page
