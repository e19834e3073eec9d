# SPDX-License-Identifier: Apache-2.0
"""A silo judges students: what it takes, what it charges, what comes back, and what its noise promises."""

import contextlib
import dataclasses
import itertools
import logging
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from support.judged_students import (
    COUNT,
    NOISE_ONLY,
    SHAPE,
    a_manifest,
    a_policy,
    a_student,
    begun,
    held_out_images,
    judging,
    judging_over,
    sent,
    truly_right,
)

from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.evaluate import predicted_classes
from fedcpsc.errors import PolicyError, RefusalCode
from fedcpsc.gatekeeper import evaluating
from fedcpsc.gatekeeper.composition import exposures, released_epsilon
from fedcpsc.gatekeeper.evaluation_promise import cost_of_one
from fedcpsc.gatekeeper.guarantee import guarantee_of, initial_budget
from fedcpsc.gatekeeper.held_out import HeldOut
from fedcpsc.gatekeeper.ledger_words import readable
from fedcpsc.ledger.ledger import MU2_UNIT, Charge, Ledger
from fedcpsc.models.registry import build_classifier
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.privacy.counting import NoisyCounts
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.evaluation import PerClassCounts
from fedcpsc.protocol.messages import AnswerForm, DescribeRequest, EvaluationAnswer, Query, Refusal

EXACT = {"evaluations": 2, "public_size": True}
NOISY = {"evaluations": 3, "sigma": 5.0, "public_size": True}


def code(reply: object) -> RefusalCode | None:
    return reply.code if isinstance(reply, Refusal) else None


def of(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.frombuffer(save(state), np.uint8)


def test_a_silo_whose_policy_does_not_say_so_judges_nobody(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(None))
    assert gatekeeper.describe(DescribeRequest()).evaluation is None
    assert code(gatekeeper.evaluate(sent())) is RefusalCode.NO_EVALUATION
    assert gatekeeper.ledger.status().events == 1


def test_without_a_promise_the_number_is_exact_and_said_to_be_unprotected(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    offer = gatekeeper.describe(DescribeRequest()).evaluation
    assert (offer.total, offer.left, offer.sigma, offer.held_out) == (2, 2, 0.0, COUNT)
    found = gatekeeper.evaluate(sent())
    images = held_out_images()
    told = predicted_classes(a_student(), ImageSet(images.images, images.labels, 3))
    assert found.right == int((told == images.labels).sum()) == truly_right()
    assert (found.sigma, found.held_out, found.evaluations_left, found.claim.dp) == (0.0, COUNT, 1, False)
    assert exposures(gatekeeper.ledger) == 1
    assert [row["epsilon_so_far"] for row in readable(gatekeeper.ledger.export())][-1] is None


def test_the_number_of_images_is_told_only_where_it_is_public(tmp_path):
    gatekeeper = judging(tmp_path, a_policy({**EXACT, "public_size": False}))
    assert gatekeeper.describe(DescribeRequest()).evaluation.held_out is None
    assert gatekeeper.evaluate(sent()).held_out is None


def test_outputs_say_which_of_the_students_classes_are_the_silos_own(tmp_path):
    images = held_out_images()
    network = build_classifier("convnet", 5, SHAPE, 2, seed=3)
    gatekeeper = judging(tmp_path, a_policy(EXACT), images)
    found = gatekeeper.evaluate(sent(network=network, classes=5, outputs=(4, 0, 2)))
    told = predicted_classes(network, ImageSet(images.images, images.labels, 5))
    assert found.right == int((told == np.array([4, 0, 2])[images.labels]).sum())


def test_class_by_class_where_the_policy_says_so(tmp_path):
    images = held_out_images()
    network = build_classifier("convnet", 5, SHAPE, 2, seed=3)
    gatekeeper = judging(tmp_path, a_policy({**EXACT, "per_class": True}), images)
    assert gatekeeper.describe(DescribeRequest()).evaluation.per_class
    found = gatekeeper.evaluate(sent(network=network, classes=5, outputs=(4, 0, 2)))
    told = predicted_classes(network, ImageSet(images.images, images.labels, 5))
    right = told == np.array([4, 0, 2])[images.labels]
    assert found.per_class == PerClassCounts(
        tuple(int((images.labels == own).sum()) for own in range(3)),
        tuple(int(right[images.labels == own].sum()) for own in range(3)),
        tuple(int((told == output).sum()) for output in (4, 0, 2)),
    )
    assert found.right == right.sum()
    assert gatekeeper.evaluate(sent(network=network, classes=5, outputs=(4, 0, 2))) == found
    (tmp_path / "plain").mkdir()
    plain = judging(tmp_path / "plain", a_policy(EXACT), images)
    assert not plain.describe(DescribeRequest()).evaluation.per_class
    assert plain.evaluate(sent()).per_class is None


def test_an_image_whose_output_is_not_finite_is_of_no_class(tmp_path):
    gatekeeper = judging(tmp_path, a_policy({**EXACT, "per_class": True}))
    network = a_student()
    state = network.state_dict()
    large = {name: torch.full_like(state[name], 3e38) for name in state if name.endswith("weight")}
    network.load_state_dict({**state, **large})
    found = gatekeeper.evaluate(sent(network=network))
    assert (found.right, sum(found.per_class.images), sum(found.per_class.predicted)) == (0, COUNT, 0)


def test_the_same_evaluation_again_gets_the_same_bytes_uncharged_and_looks_at_no_image(tmp_path, monkeypatch):
    gatekeeper = judging(tmp_path, a_policy(NOISY, mechanism=NOISE_ONLY))
    first, spent = gatekeeper.evaluate(sent()), gatekeeper.ledger.status().spent
    monkeypatch.setattr(evaluating, "predictions", lambda *_: pytest.fail("looked again"))
    assert to_bytes(gatekeeper.evaluate(sent())) == to_bytes(first)
    assert gatekeeper.ledger.status().spent == spent
    assert code(gatekeeper.evaluate(sent(network=a_student(1)))) is RefusalCode.REPLAY
    assert gatekeeper.ledger.status().spent == spent


def test_it_is_charged_durably_before_the_student_sees_an_image_and_a_crash_is_not_charged_twice(tmp_path, monkeypatch):
    policy = a_policy(NOISY, mechanism=NOISE_ONLY)
    gatekeeper = judging(tmp_path, policy)
    seen = []

    def dies(*_: object) -> None:
        with contextlib.closing(Ledger.read(tmp_path / "ledger.sqlite")) as other:
            seen.append(other.status().spent.mu2)
        raise MemoryError

    monkeypatch.setattr(evaluating, "predictions", dies)
    assert code(gatekeeper.evaluate(sent())) is RefusalCode.INTERNAL
    cost = MU2_UNIT // 25
    assert seen == [cost]
    monkeypatch.undo()
    found = gatekeeper.evaluate(sent())
    assert isinstance(found, EvaluationAnswer)
    assert found.evaluations_left == 2
    assert gatekeeper.ledger.status().spent.mu2 == cost


def test_evaluations_are_limited_over_the_life_of_the_ledger(tmp_path):
    policy = a_policy(EXACT)
    gatekeeper = judging(tmp_path, policy)
    assert [code(gatekeeper.evaluate(sent(number))) for number in (1, 2, 3)] == [None, None, RefusalCode.BUDGET]
    gatekeeper.close()
    ledger = Ledger.open(tmp_path / "ledger.sqlite", "patients")
    again = judging_over(ledger, policy, a_manifest(), held_out_images(20, seed=9))  # other images, the same ledger
    assert again.describe(DescribeRequest()).evaluation.left == 0
    assert code(again.evaluate(sent(4))) is RefusalCode.BUDGET
    assert code(again.evaluate(sent(3))) is RefusalCode.BUDGET  # what was refused stays refused
    assert isinstance(again.evaluate(sent(2)), EvaluationAnswer)
    raised = judging_over(ledger, a_policy({**EXACT, "evaluations": 3}), a_manifest())
    assert isinstance(raised.evaluate(sent(5)), EvaluationAnswer)
    ledger.verify()


def nan(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"stem.weight": torch.full_like(state["stem.weight"], math.nan)}


def _state() -> dict[str, torch.Tensor]:
    return load(sent().weights.tobytes())


STATE = _state()
NAME = "stem.weight"
HOSTILE = {
    "unknown architecture": {"architecture": "os.system"},
    "a library's architecture": {"architecture": "torchvision/resnet18"},
    "another architecture": {"architecture": "lenet5"},
    "another width": {"width": 3},
    "a huge width": {"width": 4096},
    "other image shape": {"image_shape": (1, 8, 9)},
    "fewer classes": {"outputs": (0, 1)},
    "other names": {"class_names": ("ant", "bee", "dog")},
    "no names": {"class_names": None},
    "more outputs than tensors": {"classes": 4},
    "no safetensors": {"weights": np.frombuffer(b"x" * 500, np.uint8)},
    "a pickle": {"weights": np.frombuffer(b"\x80\x04\x95" * 99, np.uint8)},
    "half a file": {"weights": sent().weights[:-4]},
    "a tensor missing": {"weights": of({key: value for key, value in STATE.items() if key != NAME})},
    "a tensor more": {"weights": of({**STATE, "more": torch.zeros(1)})},
    "another shape": {"weights": of({**STATE, NAME: STATE[NAME][:1].clone()})},
    "another type": {"weights": of({**STATE, NAME: STATE[NAME].double()})},
    "not finite": {"weights": of(nan(STATE))},
    "too many bytes": {"weights": np.zeros(2_000_001, np.uint8)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_student_for_this_silo_is_refused_at_the_door_uncharged(tmp_path, what, monkeypatch):
    monkeypatch.setattr(evaluating, "predictions", lambda *_: pytest.fail("it was let in"))
    gatekeeper = judging(tmp_path, a_policy({**EXACT, "max_megabytes": 2.0}))
    asked = sent(**HOSTILE[what])
    assert gatekeeper.evaluate(asked) == Refusal(RefusalCode.STUDENT, asked.query_id)
    assert gatekeeper.ledger.status().events == 1


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"version": "2.0"}, RefusalCode.VERSION),
        ({"run": "a\nb"}, RefusalCode.MALFORMED),
        ({"principal": "x" * 201}, RefusalCode.MALFORMED),
    ],
)
def test_who_asks_is_checked_as_of_queries(tmp_path, change, wanted):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    assert code(gatekeeper.evaluate(sent(**change))) is wanted
    assert code(gatekeeper.evaluate("no query")) is RefusalCode.MALFORMED
    assert gatekeeper.ledger.status().events == 1


def test_an_output_that_is_not_finite_counts_as_wrong_and_is_no_error(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    network = a_student()
    state = network.state_dict()
    large = {name: torch.full_like(state[name], 3e38) for name in state if name.endswith("weight")}
    network.load_state_dict({**state, **large})
    assert gatekeeper.evaluate(sent(network=network)).right == 0


def test_each_image_is_judged_by_itself_whatever_lies_beside_it(tmp_path):
    images = held_out_images(9)
    whole = evaluating.predictions(a_student().eval(), images)
    for place in range(9):
        alone = HeldOut(images.images[place : place + 1], images.labels[place : place + 1])
        assert evaluating.predictions(a_student().eval(), alone).tolist() == [whole[place]]


# What is promised ----------------------------------------------------------------------------------------------------


def test_a_dp_policy_without_noise_and_noise_without_a_dp_policy_are_refused():
    with pytest.raises(ValueError, match="an exact number breaks the guarantee"):
        a_policy(EXACT, mechanism=NOISE_ONLY)
    with pytest.raises(ValueError, match="noise promises nothing"):
        a_policy(NOISY)


def test_exact_counts_by_class_tell_the_number_of_images_which_must_then_be_public():
    with pytest.raises(ValueError, match=r"per_class=True: tells the number.*public_size: true"):
        a_policy({"evaluations": 2, "per_class": True})
    assert a_policy({**NOISY, "public_size": False, "per_class": True}, mechanism=NOISE_ONLY)


def test_the_charge_is_the_exact_mu2_of_as_many_images_as_a_unit_may_hold(tmp_path):
    policy = a_policy({**NOISY, "images_per_person": 4}, mechanism=NOISE_ONLY)
    assert cost_of_one(policy.evaluation, "record") == math.ceil(MU2_UNIT / 25)
    assert cost_of_one(policy.evaluation, "person") == math.ceil(16 * MU2_UNIT / 25)
    gatekeeper = judging(tmp_path, policy)
    gatekeeper.evaluate(sent())
    released = released_epsilon(gatekeeper.ledger, 1e-5)
    assert released.epsilon == pytest.approx(gaussian_epsilon(0.2, 1e-5), rel=1e-6)
    row = next(row for row in gatekeeper.ledger.export() if row["kind"] == "charged")
    assert (row["answers"], row["private"], row["sensitivity"], row["sigma"]) == (0, 1, 1.0, 5.0)
    assert exposures(gatekeeper.ledger) == 0
    assert gatekeeper.ledger.status().unprotected == 0


def test_noise_for_evaluations_is_set_aside_and_answers_cannot_use_it_up(tmp_path):
    without = judging(tmp_path, a_policy(None, answers=10**6, mechanism=NOISE_ONLY))
    plain = without.describe(DescribeRequest()).answers_left
    (tmp_path / "b").mkdir()
    policy = a_policy({**NOISY, "evaluations": 10}, answers=10**6, mechanism=NOISE_ONLY)
    gatekeeper = judging(tmp_path / "b", policy)
    left = gatekeeper.describe(DescribeRequest()).answers_left
    each = 2 / 50.0**2
    assert plain - left == pytest.approx(10 / 25 / each, abs=1.01)
    images = np.zeros((1, *SHAPE), np.uint8)
    spent = gatekeeper.ledger.reserve(  # all answers in one stroke
        "f" * 32, "x", Charge(left, math.ceil(each * left * MU2_UNIT), True), limit=gatekeeper._limit()
    )
    assert type(spent).__name__ == "Reserved"
    assert code(gatekeeper.answer(Query("e" * 32, AnswerForm.PROBABILITIES, images))) is RefusalCode.BUDGET
    assert [code(gatekeeper.evaluate(sent(number))) for number in range(1, 12)] == [None] * 10 + [RefusalCode.BUDGET]
    status = gatekeeper.ledger.status()
    assert status.spent.mu2 <= gatekeeper.guarantee.limit.mu2
    assert released_epsilon(gatekeeper.ledger, 1e-5).epsilon <= 4.0


DP_SGD = {"epsilon": 1.0, "delta": 1e-5}


def test_evaluations_compose_with_the_training_and_too_many_are_refused_before_anything_is_asked(tmp_path):
    proof = dp_sgd_proof()
    few = a_policy({**NOISY, "sigma": 40.0}, mechanism={"kind": "dp_sgd", "epsilon": 1.5})
    manifest = a_manifest(privacy=proof)
    budget = initial_budget(few)
    assert budget.mu2 == 3 * math.ceil(MU2_UNIT / 1600)
    ledger = begun(tmp_path, few, manifest)
    guarantee = guarantee_of(few, manifest, ledger)
    assert (guarantee.claim.epsilon, guarantee.limit.mu2) == (1.5, budget.mu2)
    gatekeeper = judging_over(ledger, few, manifest)
    assert [code(gatekeeper.evaluate(sent(number))) for number in (1, 2, 3)] == [None] * 3
    assert isinstance(gatekeeper.describe(DescribeRequest()).answers_left, int)
    many = a_policy({**NOISY, "sigma": 1.0, "evaluations": 9}, mechanism={"kind": "dp_sgd", "epsilon": 1.5})
    with pytest.raises(PolicyError, match="evaluations of students still to come"):
        guarantee_of(many, manifest, ledger)


def dp_sgd_proof() -> dict[str, object]:
    from fedcpsc.privacy.accounting import dp_sgd_epsilon
    from fedcpsc.privacy.randomness import NOISE_SOURCE

    history = [[2.0, 0.01, 200]]
    epsilon = dp_sgd_epsilon([tuple(step) for step in history], 1e-5)
    return {
        "kind": "dp_sgd", "epsilon": epsilon + 0.01, "delta": 1e-5, "unit": "record", "relation": "add_remove",
        "history": history, "noise_source": NOISE_SOURCE, "records": 1000,
    }  # fmt: skip


def test_a_ledger_whose_budget_does_not_hold_the_evaluations_is_told_before_anything_is_asked(tmp_path):
    manifest = a_manifest(privacy=dp_sgd_proof())
    before = a_policy(None, mechanism={"kind": "dp_sgd", "epsilon": 2.0})
    ledger = begun(tmp_path, before, manifest)
    now = a_policy({**NOISY, "sigma": 40.0}, mechanism={"kind": "dp_sgd", "epsilon": 2.0})
    with pytest.raises(PolicyError, match="fedcpsc ledger raise --epsilon"):
        guarantee_of(now, manifest, ledger)
    ledger.raise_budget(mu2=10**12)
    assert guarantee_of(now, manifest, ledger).claim.dp


def test_after_an_exact_evaluation_no_promise_can_be_made(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    gatekeeper.evaluate(sent())
    with pytest.raises(PolicyError, match="1 releases of this population had no guarantee"):
        guarantee_of(a_policy(NOISY, mechanism=NOISE_ONLY), a_manifest(), gatekeeper.ledger)


def test_after_rows_were_lost_nobody_knows_how_many_evaluations_there_were(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    gatekeeper.ledger.carry("lost", Charge(5, mechanism="unknown: rows lost"))
    with pytest.raises(PolicyError, match="rows of this ledger were lost"):
        guarantee_of(a_policy(EXACT), a_manifest(), gatekeeper.ledger)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_the_noise_is_as_large_as_it_says_and_no_larger(sigma):
    """Two-sided: a variance of 4000 draws lies within 12 % of the rounded Gaussian's but for a chance of 1e-7."""
    mechanism = a_policy({**NOISY, "sigma": sigma}, mechanism=NOISE_ONLY).evaluation.mechanism("record")
    drawn = np.array([mechanism.release(np.array([30]))[0] for _ in range(4000)])
    variance = sigma**2 + 1 / 12
    assert abs(drawn.mean() - 30) < 5.4 * math.sqrt(variance / 4000)
    assert 0.88 < drawn.var() / variance < 1.12
    assert not 0.88 < drawn.var() / (variance * 4 / 9) < 1.12
    assert not 0.88 < drawn.var() / (variance * 9 / 4) < 1.12


def test_what_two_neighbours_release_is_no_easier_to_tell_apart_than_the_charge_says_and_hardly_harder():
    """Real code on two worlds that differ in one person of m images: 0.8 mu <= proven mu <= mu, at 1 - 2e-6."""
    from fractions import Fraction

    from fedcpsc.audit.bounds import two_world_mu

    most, draws = 6, 40_000
    mechanism = NoisyCounts(Fraction(4), most)
    mu = math.sqrt(mechanism.cost())
    assert mu == 1.5
    a, b = (np.array([mechanism.release(np.array([right]))[0] for _ in range(draws)]) for right in (0, most))
    false, missed = int((a > most / 2).sum()), int((b <= most / 2).sum())
    proven = two_world_mu(false, draws, missed, draws, 1 - 2e-6)
    assert 0.8 * mu < proven <= mu


def test_class_by_class_an_evaluation_costs_four_times_as_much_and_the_ledger_says_so(tmp_path):
    policy = a_policy({**NOISY, "per_class": True, "images_per_person": 4}, mechanism=NOISE_ONLY)
    assert cost_of_one(policy.evaluation, "record") == math.ceil(4 * MU2_UNIT / 25)
    assert cost_of_one(policy.evaluation, "person") == math.ceil(4 * 16 * MU2_UNIT / 25)
    gatekeeper = judging(tmp_path, policy)
    gatekeeper.evaluate(sent())
    row = next(row for row in gatekeeper.ledger.export() if row["kind"] == "charged")
    assert (row["mechanism"], row["sensitivity"]) == ("evaluation sigma=5.0 images_per_unit=1 per class", 2.0)
    assert released_epsilon(gatekeeper.ledger, 1e-5).epsilon == pytest.approx(gaussian_epsilon(0.4, 1e-5), rel=1e-6)


def test_one_unit_moves_all_numbers_together_as_far_as_the_charge_says_and_some_unit_does():
    """Two-sided: over all ways to add m images, the largest distance is 2 m, and the gatekeeper's own code counts."""
    judge = SimpleNamespace(section=a_policy({**EXACT, "per_class": True}).evaluation, classes=2)
    outputs, most = (2, 0), 2

    def numbers(labels, predicted):
        judge.held_out = HeldOut(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int64))
        return evaluating.StudentJudge._counts(judge, np.array(predicted, np.int64), outputs)

    without = numbers([0, 1, 1], [2, 2, -1])
    images = list(itertools.product(range(2), range(-1, 3)))  # its label, and what the student says of it
    distances = []
    for count in range(1, most + 1):
        for more in itertools.product(images, repeat=count):
            with_ = numbers([0, 1, 1, *(one[0] for one in more)], [2, 2, -1, *(one[1] for one in more)])
            distances.append(np.linalg.norm(with_ - without))
    mechanism = a_policy({**NOISY, "per_class": True, "images_per_person": most}, mechanism=NOISE_ONLY).evaluation
    assert max(distances) == mechanism.mechanism("person").sensitivity == 2 * most


def test_every_number_has_noise_of_its_own(tmp_path):
    """Over 60 evaluations of one student: the 10 numbers vary as stated (chi-squared), and not together."""
    policy = a_policy(
        {**NOISY, "per_class": True, "sigma": 40.0, "evaluations": 60}, mechanism=NOISE_ONLY | {"epsilon": 30.0}
    )
    gatekeeper = judging(tmp_path, policy)
    drawn = []
    for number in range(1, 61):
        found = gatekeeper.evaluate(sent(number))
        told = found.per_class
        drawn.append([found.right, *told.images, *told.right, *told.predicted])
    drawn = np.array(drawn, float)
    assert drawn.shape == (60, 10)
    variances = drawn.var(0, ddof=1) / 1600
    assert ((variances > 0.35) & (variances < 2.2)).all()  # outside with a chance below 1e-6 each
    together = np.corrcoef(drawn.T) - np.eye(10)
    assert np.abs(together).max() < 0.65


def test_two_neighbours_numbers_together_are_no_easier_to_tell_apart_than_the_charge_says():
    """The most telling statistic on two worlds that differ in one right image: 0.8 mu <= proven mu <= mu."""
    from fractions import Fraction

    from fedcpsc.audit.bounds import two_world_mu

    draws, mechanism = 40_000, NoisyCounts(Fraction(4), 3, 4)
    mu = math.sqrt(mechanism.cost())
    assert mu == 1.5
    worlds = (np.zeros(10, np.int64), np.array([3, 3, 0, 0, 3, 0, 0, 3, 0, 0]))
    a, b = (np.array([mechanism.release(world) @ (worlds[1] > 0) for _ in range(draws)]) for world in worlds)
    false, missed = int((a > 6).sum()), int((b <= 6).sum())
    proven = two_world_mu(false, draws, missed, draws, 1 - 2e-6)
    assert 0.8 * mu < proven <= mu


def test_the_owners_log_holds_no_number(tmp_path, caplog):
    caplog.set_level("INFO", "fedcpsc")
    gatekeeper = judging(tmp_path, a_policy(EXACT))
    found = gatekeeper.evaluate(sent())
    told = [record for record in caplog.records if "judged a student" in record.getMessage()]
    usual = set(vars(logging.makeLogRecord({})))  # line, process, milliseconds: any number may be among them
    own = [str(value) for record in told for key, value in vars(record).items() if key not in usual]
    assert told
    assert own
    assert all("images" not in record.fedcpsc for record in told)  # none came with the student
    for words in (*own, *(record.getMessage() for record in told)):
        assert "right" not in words.split()
        assert str(found.right) not in re.findall(r"(?<![0-9a-f-])\d+(?![0-9a-f-])", words)


def test_the_description_and_the_answers_name_the_promise(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(NOISY, mechanism=NOISE_ONLY))
    found = gatekeeper.evaluate(sent())
    assert (found.claim.dp, found.claim.epsilon, found.claim.unit, found.sigma) == (True, 4.0, "record", 5.0)
    assert dataclasses.replace(found, right=0).claim == gatekeeper.describe(DescribeRequest()).claim
