"""The mixture of priors moves towards kinds of image in which the silos see many classes."""

import json

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.distillation.answer_bank import AnswerBank
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steering import effective_classes, named_classes, steered
from fedcpsc.distillation.teachers import LocalTeachers
from fedcpsc.priors.mixture import KINDS

SMOOTH, LEAVES = (KINDS.index(name) for name in ("smooth", "dead_leaves"))


def named(smooth, leaves, count=1000):
    """`count` images of each kind, whose classes are drawn evenly from so many of four."""
    made = np.zeros((len(KINDS), 4))
    made[SMOOTH, :smooth] = count / smooth
    made[LEAVES, :leaves] = count / leaves
    return made


def test_effective_classes_count_what_is_named():
    told = named(1, 4, 10_000)
    assert effective_classes(told[SMOOTH], told) == pytest.approx(1, abs=0.02)
    assert effective_classes(told[LEAVES], told) == pytest.approx(4, abs=0.001)


def test_of_no_answers_nothing_is_known_and_of_few_little():
    told = named(1, 4)
    everything = effective_classes(told.sum(0), told)
    assert effective_classes(np.zeros(4), told) == pytest.approx(everything)
    few = np.array([2.0, 0, 0, 0])
    assert 0.5 * everything < effective_classes(few, told) < everything


@pytest.mark.parametrize(("power", "ratio"), [(0, 1), (1, 2), (4, 16)])
def test_weights_follow_the_number_of_classes_to_a_power(power, ratio):
    mixture = steered({"smooth": 3.0, "dead_leaves": 1.0}, named(2, 4, 100_000), power)
    assert sum(mixture.values()) == pytest.approx(1)
    assert mixture["dead_leaves"] / mixture["smooth"] == pytest.approx(ratio / 3, rel=0.01)


def test_a_kind_without_weight_keeps_none():
    assert steered({"smooth": 0.0, "dead_leaves": 1.0}, named(4, 1), 4)["smooth"] == 0


def test_answers_are_added_up_by_kind_over_the_first_rounds_alone(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 2, ["a"])
    told = np.array([[1, 0], [0, 1], [0.5, 0.5], [1, 0]], np.float32)
    for number in range(3):
        labels = np.array([-1 - LEAVES, -1 - SMOOTH, -1 - LEAVES, 1])  # the last is a generator's
        batch = bank.add_batch(number, np.full((4, 1, 2, 2), number, np.uint8), labels)
        if number != 1:  # nobody answered the second
            bank.add_answers(batch.query_id, "a", told)
            bank.set_targets(batch, told)
    one = named_classes(bank, 1)
    assert one[LEAVES].tolist() == [1.5, 0.5]
    assert one[SMOOTH].tolist() == [0, 1]
    assert one.sum() == 3
    np.testing.assert_array_equal(named_classes(bank, 2), one)
    np.testing.assert_array_equal(named_classes(bank, 3), 2 * one)


class SeesLeavesAlone(FakeSilo):
    """Tells flat patches apart by their tone, and calls everything else class 0."""

    def answer(self, query):
        answer = super().answer(query)
        flat = query.images.reshape(len(query.images), -1)
        patchy = (flat[:, 1:] == flat[:, :-1]).mean(1) > 0.4
        answer.values[~patchy] = np.array([255, 0, 0], np.uint8)
        return answer


def mixture_of(tmp_path, **settings):
    settings = {"synthesis__prior": {"smooth": 1.0, "dead_leaves": 1.0}, "synthesis__moments": None, **settings}
    config = tiny_config(silos__count=1, queries__answers_per_silo=600, synthesis__prior_share=1.0, **settings)
    silo = SeesLeavesAlone("silo-0")
    result = distill(config, LocalTeachers([silo]), tmp_path / "run")
    assert json.loads((tmp_path / "run/result.json").read_text())["prior"] == result["prior"]
    labels = np.fromfile(tmp_path / "run/bank/pseudo.i64", np.int64)
    first = 600 // config.queries.rounds
    return result["prior"], (labels[:first] == -1 - LEAVES).mean(), (labels[first:] == -1 - LEAVES).mean()


def test_a_run_asks_more_about_what_its_silos_tell_apart(tmp_path):
    told, before, after = mixture_of(tmp_path, synthesis__candidates=1)
    assert told["dead_leaves"] > 0.8
    assert before == pytest.approx(0.5, abs=0.15), "the first round knows nothing"
    assert after > 0.75


def test_power_0_leaves_the_weights(tmp_path):
    told, _, after = mixture_of(tmp_path, synthesis__candidates=1, synthesis__prior_power=0)
    assert told == {"smooth": 0.5, "dead_leaves": 0.5}
    assert after == pytest.approx(0.5, abs=0.1)
