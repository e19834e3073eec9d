# SPDX-License-Identifier: Apache-2.0
"""Silos in unlike forms and under unlike noise: what each one's answers are worth."""

import json

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.aggregation import aggregate, silo_shares
from fedcpsc.distillation.information import Window, measure
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.targets import BankAnswers, TargetKeeper
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.protocol.messages import AnswerForm, ClassReport
from fedcpsc.runs.answer_bank import AnswerBank

CLEAN, LABEL, TOP2 = Window(AnswerForm.PROBABILITIES), Window(AnswerForm.LABEL), Window(AnswerForm.TOP_K)
NOISY = Window(AnswerForm.PROBABILITIES, 0.3)
NAMES = RULES.choices.built_in()


def teachers(seed, windows, apart=0.0, count=600, classes=5):
    """One truth per image, and what each silo's teacher, `apart` from it, shows through its window."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(classes, 0.5), count).astype(np.float32)
    own = [(1 - apart) * truth + apart * rng.dirichlet(np.full(classes, 0.5), count) for _ in windows]
    return truth, [w.look(p.astype(np.float32), 2, rng) for w, p in zip(windows, own, strict=True)]


def banked(folder, windows, answers):
    names = [f"silo-{i}" for i in range(len(windows))]
    count, classes = answers[0].shape
    bank = AnswerBank(folder, (1, 2, 2), classes, names)
    half = count // 2
    for part in (slice(0, half), slice(half, count)):
        size = part.stop - part.start
        batch = bank.add_batch(0, np.zeros((size, 1, 2, 2), np.uint8), np.zeros(size, np.int64))
        for name, values in zip(names, answers, strict=True):
            bank.add_answers(batch.query_id, name, values[part])
    return bank, dict(zip(names, windows, strict=True))


@pytest.mark.parametrize("window", [CLEAN, LABEL, TOP2, NOISY])
@pytest.mark.parametrize("rule", NAMES)
def test_where_all_answer_alike_targets_are_those_of_the_rule_to_the_last_bit(tmp_path, window, rule):
    _, answers = teachers(1, [window] * 3, apart=0.4)
    bank, windows = banked(tmp_path, [window] * 3, answers)
    counts = np.random.default_rng(2).integers(0, 9, (3, 5)).astype(np.float32)
    keeper = TargetKeeper(bank, AggregationConfig(rule=rule, robust=False), counts, windows)
    keeper.refresh()
    assert keeper.information is None
    weights = RULES.get(rule).learn(BankAnswers(bank)) if RULES.get(rule).learns_from_answers else counts
    wanted = aggregate(np.stack(answers), np.ones((3, 600), bool), RULES.get(rule), counts=weights)
    assert np.array_equal(bank.targets, wanted)


def test_weights_are_the_inverse_of_the_whole_variance(tmp_path):
    shown = [CLEAN, CLEAN, LABEL, NOISY]
    truth, answers = teachers(3, shown, apart=0.3, count=4000)
    bank, windows = banked(tmp_path, shown, answers)
    found = measure(bank, windows)
    # the same by the definition: errors of each reading about its own teacher, and of the teachers about the truth
    rng = np.random.default_rng(3)
    assert np.array_equal(rng.dirichlet(np.full(5, 0.5), 4000).astype(np.float32), truth)
    own = [0.7 * truth + 0.3 * rng.dirichlet(np.full(5, 0.5), 4000) for _ in shown]
    read = found.read(np.stack(answers))
    lost = [((q - p) ** 2).sum(1).mean() for q, p in zip(read, own, strict=True)]
    between = np.stack(own).var(0, ddof=1).sum(1).mean()
    wanted = (between + min(lost)) / (between + np.array(lost))
    assert found.weight == pytest.approx(wanted, rel=0.2)
    assert found.weight[:2].tolist() == [1, 1]


def test_a_label_is_read_as_what_it_means_at_silos_that_show_more(tmp_path):
    shown = [CLEAN, LABEL]
    _, answers = teachers(4, shown)
    bank, windows = banked(tmp_path, shown, answers)
    found = measure(bank, windows)
    hidden = 1 - answers[0].max(1).mean()
    assert found.hidden == pytest.approx([0, hidden], abs=1e-6)
    read = found.read(np.stack(answers))
    assert np.array_equal(read[0], answers[0])
    assert read[1].max(1) == pytest.approx(np.full(600, 1 - hidden), abs=1e-5)
    assert read[1].sum(1) == pytest.approx(np.ones(600), abs=1e-5)
    assert found.read(np.zeros((2, 3, 5), np.float32)).sum() == 0, "who said nothing says nothing"


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("other", [LABEL, NOISY, TOP2])
def test_targets_of_unlike_silos_are_nearer_the_truth_than_without(tmp_path, rule, other):
    shown = [CLEAN, other, other]
    truth, answers = teachers(5, shown, apart=0.1)
    bank, windows = banked(tmp_path, shown, answers)
    counts = np.ones((3, 5), np.float32)
    keeper = TargetKeeper(bank, AggregationConfig(rule=rule), counts, windows)
    keeper.refresh()
    plain = aggregate(np.stack(answers), np.ones((3, 600), bool), RULES.get(rule), counts=counts)
    assert ((bank.targets - truth) ** 2).sum(1).mean() < 0.9 * ((plain - truth) ** 2).sum(1).mean()


def test_among_silos_that_disagree_anyway_noise_hardly_counts(tmp_path):
    shown = [CLEAN, Window(AnswerForm.PROBABILITIES, 0.1)]
    found = {}
    for name, apart in (("agree", 0.0), ("disagree", 1.0)):
        _, answers = teachers(6, shown, apart=apart)
        found[name] = measure(*banked(tmp_path / name, shown, answers)).weight[1]
    assert found["agree"] < 0.2
    assert found["disagree"] > 0.8


def test_a_certain_label_does_not_outshout_a_silo_that_admits_a_doubt(tmp_path):
    shown = [CLEAN, LABEL]
    _, answers = teachers(7, shown)
    bank, windows = banked(tmp_path, shown, answers)
    given = np.ones((2, 600), bool)
    before = silo_shares(np.stack(answers), given, RULES.get("entropy"))
    after = silo_shares(np.stack(answers), given, RULES.get("entropy"), information=measure(bank, windows))
    assert before[1].mean() > 0.6
    assert after[1].mean() < 0.3
    assert np.allclose(after.sum(0), 1, atol=1e-6)


def test_news_from_unlike_silos_changes_older_targets_too(tmp_path):
    shown = [CLEAN, LABEL]
    _, answers = teachers(8, shown, apart=0.5)
    names = ["silo-0", "silo-1"]
    bank = AnswerBank(tmp_path, (1, 2, 2), 5, names)
    keeper = TargetKeeper(bank, AggregationConfig(), None, dict(zip(names, shown, strict=True)))
    keeper.refresh()
    assert keeper.information is None, "nothing was answered yet"
    seen = []
    for part in (slice(0, 20), slice(20, 600)):
        size = part.stop - part.start
        batch = bank.add_batch(0, np.zeros((size, 1, 2, 2), np.uint8), np.zeros(size, np.int64))
        for name, values in zip(names, answers, strict=True):
            bank.add_answers(batch.query_id, name, values[part])
        keeper.refresh()
        seen.append(bank.targets[:20].copy())
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


@pytest.mark.parametrize("rule", ["uniform", "class_prior_log"])
def test_a_mixed_federation_runs_and_tells_who_counted_how_much(tmp_path, rule):
    report = ClassReport((5.0, 5.0, 5.0))
    both = (AnswerForm.PROBABILITIES, AnswerForm.LABEL)
    fakes = [
        FakeSilo("silo-0", forms=both, class_report=report),
        FakeSilo("silo-1", forms=both, class_report=report, noise_sigma=0.3),
        FakeSilo("silo-2", forms=(AnswerForm.LABEL,), class_report=report),
    ]
    config = tiny_config(silos__count=3, queries__form="best", aggregation__rule=rule)
    result = distill(config, LocalTransport(fakes), tmp_path / "run", evaluation=evaluation())
    assert [silo["form"] for silo in result["silos"]] == ["probabilities", "probabilities", "label"]
    weights = json.loads((tmp_path / "run/details.json").read_text())["contribution"]["weights"]
    assert np.mean(weights["silo-0"]) > max(np.mean(weights["silo-1"]), np.mean(weights["silo-2"]))
