"""The mixture of priors moves towards kinds of image in which the silos see many classes."""

import json

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steering import effective_classes, steered
from fedcpsc.distillation.teachers import LocalTeachers
from fedcpsc.priors.mixture import KINDS

SMOOTH, LEAVES = (-1 - KINDS.index(name) for name in ("smooth", "dead_leaves"))


def answers(smooth, leaves, count=1000):
    """`count` images of each kind, whose classes are drawn evenly from so many."""
    classes = np.concatenate([np.arange(count) % smooth, np.arange(count) % leaves])
    labels = np.repeat([SMOOTH, LEAVES], count)
    return np.eye(4, dtype=np.float32)[classes], labels


def test_effective_classes_count_what_is_named():
    targets, labels = answers(1, 4, 10_000)
    assert effective_classes(targets, labels == SMOOTH) == pytest.approx(1, abs=0.02)
    assert effective_classes(targets, labels == LEAVES) == pytest.approx(4, abs=0.001)


def test_unsure_answers_count_as_even_ones():
    targets = np.full((50, 4), 0.25, np.float32)
    assert effective_classes(targets, np.ones(50, bool)) == pytest.approx(4)


def test_of_no_answers_nothing_is_known_and_of_few_little():
    targets, _ = answers(1, 4, 1000)
    everything = effective_classes(targets, np.ones(2000, bool))
    assert effective_classes(targets, np.zeros(2000, bool)) == pytest.approx(everything)
    few = np.zeros(2000, bool)
    few[:2] = True
    assert 0.5 * everything < effective_classes(targets, few) < everything


@pytest.mark.parametrize(("power", "ratio"), [(0, 1), (1, 2), (4, 16)])
def test_weights_follow_the_number_of_classes_to_a_power(power, ratio):
    mixture = steered({"smooth": 3.0, "dead_leaves": 1.0}, *answers(2, 4, 100_000), power)
    assert sum(mixture.values()) == pytest.approx(1)
    assert mixture["dead_leaves"] / mixture["smooth"] == pytest.approx(ratio / 3, rel=0.01)


def test_a_kind_without_weight_keeps_none():
    assert steered({"smooth": 0.0, "dead_leaves": 1.0}, *answers(4, 1), 4)["smooth"] == 0


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
    return result["prior"], (labels[:first] == LEAVES).mean(), (labels[first:] == LEAVES).mean()


def test_a_run_asks_more_about_what_its_silos_tell_apart(tmp_path):
    told, before, after = mixture_of(tmp_path, synthesis__candidates=1)
    assert told["dead_leaves"] > 0.8
    assert before == pytest.approx(0.5, abs=0.15), "the first round knows nothing"
    assert after > 0.75


def test_power_0_leaves_the_weights(tmp_path):
    told, _, after = mixture_of(tmp_path, synthesis__candidates=1, synthesis__prior_power=0)
    assert told == {"smooth": 0.5, "dead_leaves": 0.5}
    assert after == pytest.approx(0.5, abs=0.1)
