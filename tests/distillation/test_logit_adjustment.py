# SPDX-License-Identifier: Apache-2.0
"""Class biases by the silos' counts: what they are, who can steer them, and that a run keeps only what is better."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.judging_silo import CountingSilo, JudgingSilo, bright_images
from support.tiny_runs import tiny_config

from fedcpsc.data.images import ImageSet
from fedcpsc.distillation import at_silos
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.logit_adjustment import SiloCounts, class_biases, is_better, recall
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.evaluating import predictions
from fedcpsc.models.sent import network_of_bytes
from fedcpsc.protocol.evaluation import EvaluationAnswer, PerClassCounts
from fedcpsc.runs.evaluation_words import adjustment_in_words
from fedcpsc.runs.metrics import read_metrics

FAR = PerClassCounts((60, 0, 0), (60, 0, 0), (60, 0, 0))
SHORT = {"queries__deadline_s": 1.0}
SHIFT = np.array([2.0, -0.5, -1.5])


def counts(images, predicted, sigma=0.0):
    return SiloCounts(np.array(images, float), np.minimum(images, predicted), np.array(predicted, float), sigma)


def answer(right, held_out=100, per_class=None):
    return EvaluationAnswer("0" * 32, right, 0.0, held_out, 3, per_class=per_class)


# What is added ------------------------------------------------------------------------------------------------------


def test_a_class_that_is_said_twice_as_often_as_it_is_loses_half_of_its_odds():
    found = class_biases([counts([998, 998, 998], [1998, 498, 498])], 1.0)
    np.testing.assert_allclose(found, [-np.log(4) * 2 / 3, np.log(4) / 3, np.log(4) / 3], atol=1e-12)
    assert abs(found.sum()) < 1e-12


def test_shifts_bring_back_the_shares_that_the_images_have():
    """Two-sided: of a student with known biases, the counts of 30,000 images give them back to 0.15."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30_000)
    logits = rng.normal(0, 1.5, (30_000, 3))
    logits[np.arange(30_000), labels] += 2
    told, shift = logits + SHIFT, np.zeros(3)
    for _ in range(12):
        predicted = np.bincount((told + shift).argmax(1), minlength=3)
        shift += class_biases([counts(np.bincount(labels, minlength=3), predicted)], 0.5)
    np.testing.assert_allclose(shift, -(SHIFT - SHIFT.mean()), atol=0.15)


def test_noise_alone_moves_nothing():
    rng = np.random.default_rng(1)
    plain, noisy = [], []
    for _ in range(300):
        predicted = 30 + rng.normal(0, 25, 10)
        plain.append(np.abs(class_biases([counts([30] * 10, predicted)], 0.5)).mean())
        noisy.append(np.abs(class_biases([counts([30] * 10, predicted, 25.0)], 0.5)).mean())
    assert np.mean(plain) > 0.25
    assert np.mean(noisy) < 0.12


def test_a_silo_that_says_it_has_more_images_than_all_others_counts_as_much_as_the_median():
    honest = [counts([50, 50], [50, 50])] * 4
    one = class_biases([*honest, counts([50, 50], [90, 10])], 0.5)
    boasting = class_biases([*honest, counts([500_000, 500_000], [900_000, 100_000])], 0.5)
    np.testing.assert_allclose(one, boasting, atol=0.01)


def test_no_class_is_shifted_without_bounds():
    found = class_biases([counts([10**6, 0], [0, 10**6])], 0.5)
    assert found.tolist() == [0.0, 0.0]  # of a class without images nobody would see what it loses
    found = class_biases([counts([10**6, 1], [1, 10**6])], 0.5)
    assert found.tolist() == [1.0, -1.0]


def test_a_silos_own_classes_lie_where_the_federation_has_them():
    told = PerClassCounts((5, 7), (4, 6), (6, 1))
    found = SiloCounts.of(answer(10, 12, told), (3, 0), 4)
    assert found.images.tolist() == [7, 0, 0, 5]
    assert found.predicted.tolist() == [1, 0, 0, 6]
    assert SiloCounts.of(answer(10, 12), (3, 0), 4) is None


def test_recall_is_told_of_classes_with_more_images_than_noise():
    assert recall([counts([10, 0, 4], [5, 9, 8]), counts([14, 0, 0], [14, 0, 0])]) == [0.7917, None, 1.0]
    assert recall([counts([100, 19], [50, 19], sigma=5.0)]) == [0.5, None]


def test_a_class_that_no_silo_has_images_of_stays_as_it_is():
    found = class_biases([counts([40, 40, 0], [30, 20, 30])], 1.0)
    assert found[2] == 0
    assert found[1] > 0 > found[0]
    assert found.sum() == pytest.approx(0)


def test_a_silo_whose_noise_outweighs_its_images_tells_nothing_and_shrinks_nobodys_shift():
    told = PerClassCounts((5, 9, 7), (5, 5, 5), (3, 9, 9))
    assert SiloCounts.of(EvaluationAnswer("0" * 32, 20, 8.0, None, 3, per_class=told), (0, 1, 2), 3) is None
    assert SiloCounts.of(EvaluationAnswer("0" * 32, 20, 6.0, None, 3, per_class=told), (0, 1, 2), 3) is not None


def test_what_noise_alone_may_be_is_no_gain():
    def noisy(right):
        return EvaluationAnswer("0" * 32, right, 10.0, 100, 3)

    before = {silo: noisy(80) for silo in "abc"}
    assert not is_better(before, {silo: noisy(88) for silo in "abc"})  # 24 in all; the noise on it is 24.5
    assert is_better(before, {silo: noisy(89) for silo in "abc"})


def test_one_silo_of_three_or_more_cannot_have_kept_what_costs_the_others_by_any_size_it_claims():
    before = {"a": answer(800, 1000), "b": answer(800, 1000), "c": answer(80, 100), "d": answer(80, 100)}
    after = {"a": answer(779, 1000), "b": answer(779, 1000), "c": answer(81, 100), "d": answer(81, 100)}
    for size in (1, 100, 10_000):
        liar = answer(0, size), answer(size, size)
        assert not is_better({**before, "e": liar[0]}, {**after, "e": liar[1]})


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([80, 80, 80], [82, 81, 80], True),
        ([80, 80, 80], [80, 80, 80], False),
        ([80, 80, 80], [100, 78, 79], False),  # one alone says so, and the others lose
        ([80, 80], [90, 78], False),  # of two neither may lose
        ([80, 80], [90, 80], True),
        ([80], [81], True),
        ([], [], False),
    ],
)
def test_more_images_must_be_right_and_not_by_one_silos_word_alone(before, after, wanted):
    first = {str(silo): answer(right) for silo, right in enumerate(before)}
    then = {str(silo): answer(right) for silo, right in enumerate(after)}
    assert is_better(first, then) is wanted


def test_only_silos_that_judged_both_are_compared_and_most_must_have():
    before = {"a": answer(80), "b": answer(10), "c": answer(70)}
    assert is_better(before, {"a": answer(81), "c": answer(70)})
    assert not is_better(before, {"a": answer(79), "c": answer(70)})
    assert not is_better(before, {"a": answer(99)})


# In a run -----------------------------------------------------------------------------------------------------------


def with_silos(count, **changes):
    asked = {"evaluation__at_silos": True, "evaluation__held_out": False, "queries__deadline_s": 5.0}
    tries = {"evaluation__logit_adjustments": 2}
    return tiny_config(silos__count=count, **asked | tries | changes)


def run(folder, silos, *, told=None, resume=False, **changes):
    told = [] if told is None else told
    rules = with_silos(len(silos), **changes)
    return distill(rules, LocalTransport(silos), folder, resume=resume, tell=told.append)


def three(**fields):
    return [CountingSilo(name, bright_images(60, seed), **fields) for seed, name in enumerate("abc")]


@pytest.fixture
def biased(monkeypatch):
    """The fitted student as it is on photographs: some classes come out too often."""
    judged = at_silos._Evaluation.result

    def result(self):
        if not self.kept:
            with torch.no_grad():
                self.student.network.head.bias.add_(torch.from_numpy(SHIFT).float())
        return judged(self)

    monkeypatch.setattr(at_silos._Evaluation, "result", result)


def rights(silos, folder):
    weights = (folder / "student.safetensors").read_bytes()
    network = network_of_bytes("convnet", 3, (1, 8, 8), 4, weights)
    return [int((predictions(network, s.held_out) == s.held_out.labels).sum()) for s in silos]


def test_a_biased_student_is_shifted_judged_again_and_written(tmp_path, biased):
    silos, told = three(), []
    found = run(tmp_path, silos, told=told, student__final_steps=150)["federated_evaluation"]
    made = found["adjustment"]
    assert [len(silo.judged) for silo in silos] == [3, 3, 3]
    assert made["shifts"] >= 1
    assert found["pooled"]["accuracy"] > made["before"]["accuracy"] + 0.05
    assert made["biases"][0] < made["biases"][2]
    assert [entry["right"] for entry in found["silos"]] == rights(silos, tmp_path)
    assert any("class biases were shifted" in line for line in told)
    assert "% before" in adjustment_in_words(found)


def test_what_the_silos_do_not_call_better_is_undone(tmp_path):
    def worse(told, before):
        return replace(told, right=(9 - before, 9, 9), predicted=(10, 40, 10))

    silos = three(says=worse)
    found = run(tmp_path, silos)["federated_evaluation"]
    assert found["adjustment"]["biases"] is None
    assert "did not call more images right" in found["adjustment"]["reason"]
    first = network_of_bytes("convnet", 3, (1, 8, 8), 4, silos[0].students[0].weights.tobytes())
    stored = network_of_bytes("convnet", 3, (1, 8, 8), 4, (tmp_path / "student.safetensors").read_bytes())
    assert torch.equal(first.head.bias, stored.head.bias)
    assert [entry["right"] for entry in found["silos"]] == [27, 27, 27]


def test_one_dishonest_silo_can_neither_steer_the_student_nor_have_it_kept(tmp_path):
    def lies(told, before):
        if not before:
            return replace(told, images=(58, 1, 1), right=(1, 0, 1), predicted=(1, 1, 58))
        return replace(told, images=(60, 0, 0), right=(60, 0, 0), predicted=(60, 0, 0))

    honest = three()[:2]
    run(tmp_path / "without", [*honest, JudgingSilo("c")], evaluation__logit_adjustments=0)
    before = sum(rights(honest, tmp_path / "without"))
    silos = [*three()[:2], CountingSilo("c", bright_images(60, 2), says=lies)]
    run(tmp_path / "with", silos)
    assert sum(rights(silos[:2], tmp_path / "with")) >= before


def test_a_silo_that_the_run_suspects_moves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(BankFit, "suspected", frozenset("c"))
    silos = [*three()[:2], CountingSilo("c", bright_images(60, 2), says=lambda told, before: FAR)]
    run(tmp_path / "one", silos)
    plain = three()[:2]
    run(tmp_path / "other", [*plain, JudgingSilo("c", misbehave=lambda query, count: RefusalCode.BUSY)], **SHORT)
    biases = [silo.students[1].weights.tobytes() for silo in (silos[0], plain[0])]
    assert biases[0] == biases[1]
    assert len(silos[2].judged) == 1  # about the student as it is at last


def test_silos_without_a_second_evaluation_are_not_asked_for_one(tmp_path, biased):
    silos = three(evaluations=1)
    found = run(tmp_path, silos)["federated_evaluation"]
    assert [len(silo.judged) for silo in silos] == [1, 1, 1]
    assert found["adjustment"]["biases"] is None
    assert "no silo has an evaluation left" in found["adjustment"]["reason"]


def test_silos_that_fall_silent_while_others_are_tried_leave_a_result_that_fits_the_file(tmp_path, biased):
    """Before: only silos without counts by class were left, nothing was said of the shift, and nothing measured."""
    silos = [*three(), CountingSilo("d", bright_images(60, 3), evaluations=1)]
    evaluation = ImageSet(bright_images(90, 9).images, bright_images(90, 9).labels, 3)
    rules = with_silos(4, student__final_steps=150)
    result = distill(rules, LocalTransport(silos), tmp_path, evaluation=evaluation)
    made = result["federated_evaluation"]["adjustment"]
    assert made["shifts"] > 0
    assert made["before"]["silos"] == made["after"]["silos"] == 3
    assert result["federated_evaluation"]["silos"][3]["reason"] == "its evaluations are used up"
    weights = (tmp_path / "student.safetensors").read_bytes()
    network = network_of_bytes("convnet", 3, (1, 8, 8), 4, weights)
    stored = (predictions(network, bright_images(90, 9)) == evaluation.labels).mean()
    last = [line for line in read_metrics(tmp_path) if "student_accuracy" in line][-1]
    assert result["student"]["accuracy"] == last["student_accuracy"] == pytest.approx(stored)
    assert made["accuracy_before"] < stored


def test_silos_that_tell_no_counts_by_class_are_asked_once_about_the_student_as_it_is_at_last(tmp_path, biased):
    silos = [*three(), JudgingSilo("d")]
    found = run(tmp_path, silos, student__final_steps=150)["federated_evaluation"]
    assert found["adjustment"]["shifts"] > 0
    assert [len(silo.judged) for silo in silos] == [3, 3, 3, 1]
    (asked,) = silos[3].students
    stored = network_of_bytes("convnet", 3, (1, 8, 8), 4, (tmp_path / "student.safetensors").read_bytes())
    shown = network_of_bytes("convnet", 3, (1, 8, 8), 4, asked.weights.tobytes())
    assert torch.equal(stored.head.bias, shown.head.bias)
    assert found["pooled"]["silos"] == 4


def test_a_shift_that_moves_next_to_nothing_costs_no_evaluation(tmp_path):
    silos = three(says=lambda told, before: replace(told, right=(9, 9, 9), predicted=told.images))
    found = run(tmp_path, silos)["federated_evaluation"]
    assert [len(silo.judged) for silo in silos] == [1, 1, 1]
    assert "about as often" in found["adjustment"]["reason"]


def test_all_shifts_together_are_bounded(tmp_path):
    def always_better(told, before):
        return PerClassCounts((20, 20, 20), (5 + before, 0, 0), (50, 5, 5))

    found = run(tmp_path, three(evaluations=20, says=always_better), evaluation__logit_adjustments=10)
    biases = found["federated_evaluation"]["adjustment"]["biases"]
    assert max(map(abs, biases)) <= 3
    assert found["federated_evaluation"]["adjustment"]["shifts"] > 2


def test_what_fails_after_a_shift_leaves_the_student_as_it_was_fitted(tmp_path, biased, monkeypatch):
    monkeypatch.setattr(at_silos, "recall", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    silos = three()
    found = run(tmp_path, silos, student__final_steps=150)["federated_evaluation"]
    assert found["reason"] == "it failed (OSError)"
    first = network_of_bytes("convnet", 3, (1, 8, 8), 4, silos[0].students[0].weights.tobytes())
    stored = network_of_bytes("convnet", 3, (1, 8, 8), 4, (tmp_path / "student.safetensors").read_bytes())
    assert len(silos[0].students) == 3
    np.testing.assert_allclose(stored.head.bias, first.head.bias - torch.from_numpy(SHIFT).float(), atol=1e-6)


def test_it_is_left_out_where_nobody_tells_of_classes_or_it_is_not_wished_for(tmp_path):
    plain = [JudgingSilo("a"), JudgingSilo("b"), FakeSilo("c")]
    assert "adjustment" not in run(tmp_path / "plain", plain)["federated_evaluation"]
    silos = three()
    found = run(tmp_path / "off", silos, evaluation__logit_adjustments=0)["federated_evaluation"]
    assert "adjustment" not in found
    assert [len(silo.judged) for silo in silos] == [1, 1, 1]


def test_a_run_cut_while_it_tried_is_gone_on_with_and_nobody_charges_twice(tmp_path):
    class Died(BaseException):
        pass

    def dies(query, count):
        if count == 2:
            raise Died

    def biased_counts(told, before):
        return replace(told, right=(5, 5, 5), predicted=(10, 40, 10)) if not before else told

    silos = [*three(says=biased_counts)[:2], CountingSilo("c", bright_images(60, 2), misbehave=dies)]
    with pytest.raises(Died):
        run(tmp_path, silos)
    assert len(json.loads((tmp_path / "evaluations.json").read_text())["students"]) == 2
    silos[2].judge_misbehaves = lambda query, count: None
    found = run(tmp_path, silos, resume=True)["federated_evaluation"]
    assert [len(silo.judged) for silo in silos] == [3, 3, 3]
    assert [entry["right"] for entry in found["silos"]] == rights(silos, tmp_path)


def test_a_shift_that_is_not_kept_is_followed_by_half_of_it(tmp_path):
    def never_better(told, before):
        return replace(told, predicted=(10, 40, 10), right=(5, 5, 5))

    silos = three(says=never_better)
    run(tmp_path, silos)
    biases = [
        network_of_bytes("convnet", 3, (1, 8, 8), 4, query.weights.tobytes()).head.bias.numpy()
        for query in silos[0].students
    ]
    np.testing.assert_allclose(biases[1] - biases[0], 2 * (biases[2] - biases[0]), atol=1e-6)


def test_evaluations_that_a_try_used_up_are_not_asked_for_again(tmp_path):
    silos = three(evaluations=2, says=lambda told, before: PerClassCounts((20, 20, 20), (5, 5, 5), (10, 40, 10)))
    found = run(tmp_path, silos)["federated_evaluation"]
    assert [len(silo.students) for silo in silos] == [2, 2, 2]
    assert "no silo has an evaluation left" in found["adjustment"]["reason"]


def test_what_fails_while_others_are_tried_leaves_the_first_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(at_silos, "class_biases", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    found = run(tmp_path, three())["federated_evaluation"]
    assert found["adjustment"]["reason"] == "it failed (OSError)"
    assert found["pooled"]["silos"] == 3


WRONG = {
    "other classes": PerClassCounts((30, 30), (1, 0), (20, 40)),
    "more right than there are": PerClassCounts((20, 20, 20), (21, 0, 0), (20, 20, 20)),
    "another sum": PerClassCounts((20, 20, 21), (1, 0, 0), (20, 20, 20)),
    "more said than there are": PerClassCounts((20, 20, 20), (1, 0, 0), (20, 20, 21)),
    "below zero": PerClassCounts((20, 20, 20), (2, 0, -1), (20, 20, 20)),
}


@pytest.mark.parametrize("what", WRONG)
def test_numbers_that_contradict_one_another_are_shown_and_move_nothing(tmp_path, what):
    silos = [*three()[:2], CountingSilo("c", bright_images(60, 2), says=lambda told, before: WRONG[what])]
    found = run(tmp_path, silos)["federated_evaluation"]
    assert "contradict one another" in found["silos"][2]["reason"]
    assert len(silos[2].judged) == 1
    assert found["pooled"]["silos"] == 2
