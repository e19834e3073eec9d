# SPDX-License-Identifier: Apache-2.0
"""Another student of what a run has banked: no ledger is charged, and the same settings give the same student."""

import pytest
from support.tiny_modules import equal, federation, held_out, run, weights
from torch import nn

import fedcpsc
from fedcpsc.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def silos():
    with federation() as made:
        yield made


@pytest.fixture(scope="module")
def done(silos, tmp_path_factory):
    return run(silos, held_out=held_out(), folder=tmp_path_factory.mktemp("runs") / "done")


def test_the_same_settings_give_the_same_student_and_nobody_is_charged(silos, done):
    before = [silo.answers_left for silo in silos.silos]
    again = fedcpsc.refit(done, held_out=held_out())
    assert equal(weights(again), weights(done))
    assert again.result.student.accuracy == done.result.student.accuracy
    assert again.result.ensemble.accuracy == done.result.ensemble.accuracy
    assert again.temporary
    assert (again.bank.images == done.bank.images).all()
    assert [silo.answers_left for silo in silos.silos] == before


def test_another_student_rule_or_choice_of_silos_is_fitted_to_the_same_answers(done, tmp_path):
    other = fedcpsc.refit(
        done, student="lenet5", aggregation="entropy", exclude=["silo-2"], folder=tmp_path / "lenet",
        config={"student.final_steps": 6},
    )  # fmt: skip
    assert other.result.student.architecture == "lenet5"
    assert other.config.aggregation.rule == "entropy"
    assert other.bank.silos == ("silo-0", "silo-1")
    assert other.config.student.final_steps == 6
    assert (tmp_path / "lenet/report.html").is_file()
    with pytest.raises(RunError, match="holds a run already"):
        fedcpsc.refit(done, folder=tmp_path / "lenet")


def test_a_module_of_ones_own_is_fitted_and_refitted(done):
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    other = fedcpsc.refit(done, student=own, held_out=held_out())
    assert isinstance(other.student, nn.Sequential)
    assert equal(weights(fedcpsc.refit(other)), weights(other))
    opened = fedcpsc.open_run(other.folder)
    with pytest.raises(ConfigError, match="a module of its caller's own"):
        fedcpsc.refit(opened)
    assert fedcpsc.refit(opened, student="convnet").finished


def test_what_would_take_other_answers_is_refused(done):
    with pytest.raises(ConfigError, match=r"queries\.answers_per_silo"):
        fedcpsc.refit(done, config={"queries.answers_per_silo": 90})
    with pytest.raises(ConfigError, match="holds no answers of these"):
        fedcpsc.refit(done, exclude=["nobody"])


def test_callbacks_are_told(done):
    rounds = []

    class Rounds(fedcpsc.Callback):
        def on_round(self, line):
            rounds.append(line["round"])

    fedcpsc.refit(done.folder, callbacks=[Rounds()])
    assert rounds == [1, 2, 3]
