# SPDX-License-Identifier: Apache-2.0
"""The server's memory and open files follow the batch, whatever the number of silos times the size of the bank."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.fakes import brightness_probabilities
from support.tiny_runs import evaluation

from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import AggregationConfig
from fedcpsc.distillation.contribution import contribution
from fedcpsc.distillation.evaluate import SiloFacts, accuracy_of, evaluate_ensemble
from fedcpsc.distillation.information import Window, sample_answers
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.errors import BankError
from fedcpsc.label_sets import LabelSets
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs import answer_bank, bank_index
from fedcpsc.runs.answer_bank import AnswerBank

SILOS, K, COUNT = 40, 10, 500
NAMES = ["uniform", "answer_prior_log", "answer_peak_log"]
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_bank.os, "fsync", lambda file: None)
        yield


def banked(folder: Path, batches: int, silos: int = SILOS, count: int = COUNT) -> AnswerBank:
    bank = AnswerBank(folder, (1, 2, 2), K, [f"silo-{i}" for i in range(silos)])
    rng = np.random.default_rng(0)
    for number in range(batches):
        batch = bank.add_batch(number, np.zeros((count, 1, 2, 2), np.uint8), np.zeros(count, np.int64))
        some = rng.dirichlet(np.ones(K), count).astype(np.float32)
        for index, silo in enumerate(bank.silos):
            bank.add_answers(batch.query_id, silo, np.roll(some, index, axis=0))
    return bank


def peak_of(call: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def unlike(bank: AnswerBank) -> dict[str, Window]:
    noisy = Window(AnswerForm.PROBABILITIES, 0.1)
    return {silo: noisy if number % 2 else Window(AnswerForm.PROBABILITIES) for number, silo in enumerate(bank.silos)}


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    # the same silos and batches, an eightfold bank: all of its answers are 30 MiB
    return [banked(tmp_path_factory.mktemp("bank"), batches) for batches in (5, 40)]


@pytest.mark.parametrize("windows", [False, True], ids=["alike", "unlike"])
@pytest.mark.parametrize("rule", NAMES)
def test_what_is_held_does_not_grow_with_silos_times_bank(banks, rule, windows):
    def work(bank):
        keeper = TargetKeeper(bank, AggregationConfig(rule=rule), None, unlike(bank) if windows else None)
        keeper.refresh()
        contribution(bank, RULES.get(rule), keeper.counts, keeper.information)

    # the lesser of two: once in a while Python enlarges its table of interned strings meanwhile, by megabytes
    small, large = min(peak_of(lambda: work(banks[0])) for _ in range(2)), peak_of(lambda: work(banks[1]))
    if large >= small + 3:
        large = peak_of(lambda: work(banks[1]))
    assert large < small + 3, f"{small:.1f} MiB grew to {large:.1f} MiB"


def test_a_batch_is_looked_at_in_pieces_where_silos_are_many(tmp_path, monkeypatch):
    bank = banked(tmp_path, 2, silos=7, count=50)
    whole = [(rule, *_aggregated(bank, rule)) for rule in NAMES]
    sample = sample_answers(bank)
    monkeypatch.setattr(bank_index, "_PIECE", 7 * K * 8)  # eight rows at a time
    assert [rows.stop - rows.start for rows, *_ in bank.pieces(bank.batches[1])] == [8] * 6 + [2]
    for rule, targets, (images, shares) in whole:
        again, (images_again, shares_again) = _aggregated(bank, rule)
        np.testing.assert_allclose(again, targets, atol=1e-6)
        np.testing.assert_array_equal(images_again, images)
        np.testing.assert_allclose(shares_again, shares, atol=1e-6)
    for before, after in zip(sample, sample_answers(bank), strict=True):
        np.testing.assert_array_equal(before, after)


def _aggregated(bank, rule):
    keeper = TargetKeeper(bank, AggregationConfig(rule=rule), None)
    keeper.refresh()
    return np.array(bank.targets), contribution(bank, RULES.get(rule), keeper.counts)


def test_open_files_do_not_grow_with_the_silos(tmp_path):
    bank = banked(tmp_path, 1, silos=60, count=5)
    before = psutil.Process().num_fds()
    TargetKeeper(bank, AggregationConfig(rule="uniform"), None).refresh()
    assert psutil.Process().num_fds() < before + 10


def test_answers_that_the_disk_has_lost_are_told(tmp_path):
    bank = banked(tmp_path, 2, silos=2, count=5)
    file = tmp_path / "answers-1.f32"
    file.write_bytes(file.read_bytes()[:-1])
    assert bank.answers(bank.batches[0])[1].all()
    with pytest.raises(BankError, match=r"answers-1\.f32.*shorter than the journal says"):
        bank.answers(bank.batches[1])
    file.unlink()
    with pytest.raises(BankError, match=r"answers-1\.f32.*No such file"):
        bank.answers(bank.batches[0])


def test_teachers_are_measured_a_part_of_the_images_at_a_time(monkeypatch):
    held_out = evaluation(50)
    most = []

    def predict(images):
        most.append(len(images))
        return brightness_probabilities(images, 3)

    facts = {silo: SiloFacts(10, predict) for silo in ("a", "b")}
    whole = evaluate_ensemble(facts, ["a", "b"], held_out, RULES.get("uniform"), None, 1e-4, LabelSets.by_number(3, 2))
    monkeypatch.setattr("fedcpsc.distillation.evaluate._TOGETHER", 20)
    parts = evaluate_ensemble(facts, ["a", "b"], held_out, RULES.get("uniform"), None, 1e-4, LabelSets.by_number(3, 2))
    assert most == [50, 50, 20, 20, 20, 20, 10, 10]
    np.testing.assert_array_equal(parts.together, whole.together)
    np.testing.assert_array_equal(parts.each["a"], whole.each["a"])
    assert accuracy_of(parts.together) == 1.0
