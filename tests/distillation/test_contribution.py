# SPDX-License-Identifier: Apache-2.0
"""Who contributed what, against a loop over images; and what a run leaves of it."""

import json

import numpy as np
import pytest
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.aggregation.rule import RULES
from fedcpsc.distillation.aggregation import silo_shares
from fedcpsc.distillation.contribution import contribution
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.protocol.messages import ClassReport, DpClaim
from fedcpsc.runs.answer_bank import AnswerBank

NAMES = RULES.choices.built_in()
EVERY_BRIGHTNESS = {"smooth": 1.0}  # the prior whose tiny images make the fakes answer with each of the three classes


@pytest.mark.parametrize("rule", NAMES)
def test_shares_of_the_silos_that_answered_sum_to_one(rule):
    rng = np.random.default_rng(2)
    answers = rng.dirichlet(np.ones(4), (3, 30)).astype(np.float32)
    given = rng.random((3, 30)) < 0.6
    counts = rng.integers(0, 5, (3, 4)).astype(np.float32)
    shares = silo_shares(answers, given, RULES.get(rule), counts=counts)
    assert shares.shape == (3, 30, 4)
    assert (shares[~given] == 0).all()
    assert np.allclose(shares.sum(0)[given.any(0)], 1, atol=1e-6)


def test_the_surer_silo_has_more_to_say_under_entropy_and_no_more_under_uniform():
    answers = np.array([[[0.98, 0.01, 0.01]], [[0.4, 0.3, 0.3]]], np.float32)
    given = np.ones((2, 1), bool)
    entropy = -(answers * np.log(answers)).sum(2)[:, 0]
    expected = np.exp(-entropy) / np.exp(-entropy).sum()
    assert silo_shares(answers, given, RULES.get("entropy"))[:, 0, 0] == pytest.approx(expected, abs=1e-6)
    assert silo_shares(answers, given, RULES.get("uniform"))[:, 0, 0] == pytest.approx([0.5, 0.5])


def test_contribution_is_the_mean_share_in_the_class_the_silos_agreed_on(tmp_path):
    bank = AnswerBank(tmp_path, (1, 2, 2), 2, ["a", "b"])
    first = bank.add_batch(0, np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, np.int64))
    second = bank.add_batch(1, np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.int64))
    bank.add_batch(2, np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.int64))  # nobody answers
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    bank.add_answers(first.query_id, "a", p)
    bank.add_answers(first.query_id, "b", p)
    bank.add_answers(second.query_id, "a", p[:2])
    bank.set_targets(first, p)
    bank.set_targets(second, p[:2])
    images, weights = contribution(bank, RULES.get("class_prior_log"), np.array([[3, 0], [1, 2]], np.float32))
    assert images.tolist() == [3, 2]
    # class 0: twice 3/4 with both, once alone; class 1: 0 with both, then alone, though it has never seen the class
    assert weights == pytest.approx(np.array([[(0.75 + 0.75 + 1) / 3, 0.5], [(0.25 + 0.25) / 3, 0.5]]))


def test_a_simulated_run_leaves_its_confusions_and_weights(tmp_path):
    fakes = [FakeSilo("silo-0", class_report=ClassReport((9.0, 1.0, 0.0)))]
    fakes += [FakeSilo("silo-1", class_report=ClassReport((1.0, 3.0, 5.0)))]
    facts = {f"silo-{i}": SiloFacts(100, brightness_probabilities) for i in range(2)}
    config = tiny_config(aggregation__rule="class_prior_log", synthesis__prior=EVERY_BRIGHTNESS)
    result = distill(config, LocalTransport(fakes), tmp_path, evaluation=evaluation(), silo_facts=facts)
    details = json.loads((tmp_path / "details.json").read_text())
    confusion = details["confusion"]
    assert set(confusion["teachers"]) == {"silo-0", "silo-1"}
    for matrix, accuracy in (
        (confusion["student"], result["student"]["accuracy"]),
        (confusion["ensemble"], result["ensemble"]["accuracy"]),
        (confusion["teachers"]["silo-1"], result["silos"][1]["teacher_accuracy"]),
    ):
        assert np.sum(matrix) == 60
        assert np.trace(matrix) / 60 == accuracy
        assert np.sum(matrix, axis=1).tolist() == np.bincount(evaluation().labels, minlength=3).tolist()
    weights = details["contribution"]["weights"]
    assert sum(details["contribution"]["images"]) == 120
    assert weights["silo-0"] == pytest.approx([0.9, 0.25, 0.0], abs=1e-4)
    assert result["simulated"] is True
    assert result["silos"][0]["reply_seconds"] > 0


def test_noised_class_counts_weigh_as_exact_ones_do(tmp_path):
    claim = DpClaim(True, 0.5, 1e-5, "record", "add_remove", "class-counts")
    reports = [ClassReport((12.25, 0.0, 3.0), claim), ClassReport((0.0, 4.5, 9.0), claim)]
    fakes = [FakeSilo(f"silo-{i}", class_report=report) for i, report in enumerate(reports)]
    config = tiny_config(aggregation__rule="class_prior_log", synthesis__prior=EVERY_BRIGHTNESS)
    distill(config, LocalTransport(fakes), tmp_path)
    weights = json.loads((tmp_path / "details.json").read_text())["contribution"]["weights"]
    assert weights["silo-0"] == pytest.approx([1.0, 0.0, 0.25], abs=1e-4)


def test_a_deployment_knows_of_no_teachers_confusion(tmp_path):
    result = distill(tiny_config(), LocalTransport([FakeSilo("a"), FakeSilo("b")]), tmp_path, evaluation=evaluation())
    confusion = json.loads((tmp_path / "details.json").read_text())["confusion"]
    assert confusion["teachers"] == {}
    assert confusion["ensemble"] is None
    assert result["simulated"] is False


def test_every_round_tells_what_each_silo_answered_and_has_left(tmp_path):
    fakes = [FakeSilo("a", budget=70), FakeSilo("b")]
    distill(tiny_config(), LocalTransport(fakes), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rounds = [line["silos"] for line in lines if line["phase"] == "round"]
    assert [silos["a"]["answers"] for silos in rounds] == [30, 60, 60, 60]
    assert [silos["a"]["answers_left"] for silos in rounds] == [40, 10, 10, 10]
    assert [silos["b"]["answers_left"] for silos in rounds] == [9970, 9940, 9910, 9880]
    assert all("silos" not in line for line in lines if line["phase"] == "final")
