# SPDX-License-Identifier: Apache-2.0
"""Targets that follow the answers, and what answers alone tell of the silos that gave them."""

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.targets import BankAnswers, TargetKeeper
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.runs.answer_bank import AnswerBank

FROM_ANSWERS = ("answer_prior_log", "answer_peak_log")


def learnt(bank, rule):
    return RULES.get(rule).learn(BankAnswers(bank))


@pytest.fixture
def bank(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 3, ["a", "b", "silent"])
    for count in (4, 3):
        bank.add_batch(0, np.zeros((count, 1, 2, 2), np.uint8), np.zeros(count, np.int64))
    return bank


def answers(seed, count):
    return np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)


def test_the_mean_answer_counts_each_answered_image_once(bank):
    first, second = bank.batches
    bank.add_answers(first.query_id, "a", answers(1, 4))
    bank.add_answers(first.query_id, "b", answers(2, 4))
    bank.add_answers(second.query_id, "a", answers(3, 3))
    got = learnt(bank, "answer_prior_log")
    assert got[0] == pytest.approx(np.concatenate([answers(1, 4), answers(3, 3)]).mean(0), abs=1e-6)
    assert got[1] == pytest.approx(answers(2, 4).mean(0), abs=1e-6)
    assert got[2].tolist() == [0, 0, 0]


def test_the_peak_is_the_mean_of_the_highest_fiftieth(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 3, ["a", "silent"])
    given = answers(5, 150)
    batch = bank.add_batch(0, np.zeros((150, 1, 2, 2), np.uint8), np.zeros(150, np.int64))
    bank.add_answers(batch.query_id, "a", given)
    got = learnt(bank, "answer_peak_log")
    assert got[0] == pytest.approx([np.mean(sorted(given[:, k])[-3:]) for k in range(3)], abs=1e-6)
    assert got[1].tolist() == [0, 0, 0]


def test_a_silo_that_dumps_strange_images_on_a_class_gains_nothing_by_its_peak(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 2, ["dumps", "knows"])
    batch = bank.add_batch(0, np.zeros((100, 1, 2, 2), np.uint8), np.zeros(100, np.int64))
    dumps, knows = np.tile(np.array([0.4, 0.6], np.float32), (100, 1)), np.tile(np.array([1, 0], np.float32), (100, 1))
    knows[:10] = [0, 1]  # rarely, but then surely, class 1
    bank.add_answers(batch.query_id, "dumps", dumps)
    bank.add_answers(batch.query_id, "knows", knows)
    assert learnt(bank, "answer_prior_log")[0, 1] > learnt(bank, "answer_prior_log")[1, 1]
    assert learnt(bank, "answer_peak_log")[:, 1].tolist() == pytest.approx([0.6, 1.0])


@pytest.mark.parametrize("rule", FROM_ANSWERS)
def test_under_weights_from_answers_news_changes_older_targets_too(bank, rule):
    first, second = bank.batches
    keeper = TargetKeeper(bank, AggregationConfig(rule=rule), None)
    for silo, seed in (("a", 1), ("b", 2)):
        bank.add_answers(first.query_id, silo, answers(seed, 4))
    keeper.refresh()
    before = bank.targets[first.rows].copy()
    for silo, seed in (("a", 3), ("b", 4)):
        bank.add_answers(second.query_id, silo, answers(seed, 3))
    keeper.refresh()
    both, given = bank.answers(first)
    wanted = aggregate(both, given, RULES.get(rule), counts=learnt(bank, rule))
    assert np.abs(bank.targets[first.rows] - wanted).max() < 1e-6
    assert np.abs(bank.targets[first.rows] - before).max() > 1e-3


def half_blind(seen):
    """A teacher that knows only the classes in `seen`, and tells everything else, unsurely, as one of them."""

    def predict(images):
        p = (brightness_probabilities(images, 4) + 0.1) * seen
        return (p / p.sum(1, keepdims=True)).astype(np.float32)

    return predict


def test_silos_that_never_saw_a_class_leave_it_to_those_that_did(tmp_path):
    """Two silos with two classes each: the plain mean is torn, the answers' own priors are not."""
    knows = [np.array([1.0, 1, 0, 0]), np.array([0.0, 0, 1, 1])]
    facts = {f"silo-{i}": SiloFacts(100, half_blind(seen)) for i, seen in enumerate(knows)}
    truth = evaluation(200, classes=4)
    found = {}
    for rule in ("uniform", *FROM_ANSWERS):
        fakes = [Knowing(f"silo-{i}", half_blind(seen)) for i, seen in enumerate(knows)]
        config = tiny_config(aggregation__rule=rule)
        run = distill(config, LocalTransport(fakes), tmp_path / rule, evaluation=truth, silo_facts=facts)
        found[rule] = run["ensemble"]["accuracy"]
    for rule in FROM_ANSWERS:
        assert found[rule] >= found["uniform"]
        assert found[rule] > 0.9


class Knowing(FakeSilo):
    """A silo that answers as its own teacher does."""

    def __init__(self, name, predict):
        super().__init__(name, classes=4)
        self.predict = predict

    def answer(self, query):
        answer = super().answer(query)
        p = np.rint(self.predict(query.images) * 255).astype(np.uint8)
        return type(answer)(answer.query_id, answer.form, answer.classes, p, answer.answers_left)
