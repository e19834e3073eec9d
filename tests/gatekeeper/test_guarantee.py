# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedcpsc.errors import LedgerError, PolicyError, RefusalCode
from fedcpsc.gatekeeper.composition import composed_epsilon
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.guarantee import check_training, guarantee_of, initial_budget
from fedcpsc.gatekeeper.owner_account import OwnerAccount
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.promise import parts_with, trainings_that_fit
from fedcpsc.gatekeeper.releases import record_training, report_class_counts
from fedcpsc.ledger.budget import MU2_UNIT, Budget, Charge
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Description, Query, Refusal
from fedcpsc.teachers.manifest import Manifest, Normalisation

POPULATION = "north"
SHARDS = {"kind": "shards", "shards": 4}
DP_SGD = {
    "kind": "dp_sgd", "epsilon": 1.95, "delta": 1e-5, "records": 15_000, "noise_source": NOISE_SOURCE,
    "history": [[2.0, 0.02, 2000]],
}  # fmt: skip
MAX_ANSWERS = {  # K, sigma on the mean -> answers with epsilon <= 8, delta 1e-5
    (50, 0.05): 8, (50, 0.1): 34, (50, 0.2): 138, (50, 0.5): 867,
    (100, 0.05): 34, (100, 0.1): 138, (100, 0.2): 555, (100, 0.5): 3469,
    (250, 0.05): 216, (250, 0.1): 867, (250, 0.2): 3469, (250, 0.5): 21684,
    (1000, 0.05): 3469, (1000, 0.1): 13878, (1000, 0.2): 55513, (1000, 0.5): 346957,
}  # fmt: skip


class Shards:
    """K teachers that all say the same; the last may be broken."""

    classes, image_shape = 5, (1, 4, 4)

    def __init__(self, shards: int = 4, broken: bool = False) -> None:
        self.shards, self.broken = shards, broken

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.full((len(images), 5), 0.2, np.float32)

    def predict_shards(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        outputs = np.broadcast_to(np.eye(5, dtype=np.float32)[0], (self.shards, len(images), 5)).copy()
        if self.broken:
            outputs[-1] = np.nan
        return outputs


def manifest(privacy: dict[str, Any] | None, version: str = "1", train_size: int = 15_000) -> Manifest:
    return Manifest(
        silo="north", architecture="convnet", width=4, classes=5, image_shape=(1, 4, 4), normalisation=Normalisation(),
        population=POPULATION, train_size=train_size, training={}, weights_sha256=version * 64, fingerprint="2" * 64,
        private_class_counts=(train_size - 10_000, 4000, 3000, 2000, 1000), privacy=privacy,
    )  # fmt: skip


def policy(mechanism: dict[str, Any], **fields: Any) -> Policy:
    return Policy.model_validate({"mechanism": mechanism, **fields})


def begun(tmp_path: Path, rules: Policy) -> Ledger:
    budget = initial_budget(rules)
    return Ledger.create(tmp_path / "l.sqlite", POPULATION, budget.answers, mu2=budget.mu2)


def begun_again(tmp_path: Path) -> Ledger:
    (tmp_path / "again").mkdir()
    return begun(tmp_path / "again", policy(VOTES))


def opened(tmp_path: Path, rules: Policy, facts: Manifest, teacher: Any) -> Gatekeeper:
    ledger = begun(tmp_path, rules)
    report = report_class_counts(rules, facts, ledger)
    return Gatekeeper("north", "m", teacher, rules, ledger, guarantee_of(rules, facts, ledger), class_report=report)


def asked(number: int, count: int) -> Query:
    return Query(f"{number:032x}", AnswerForm.PROBABILITIES, np.zeros((count, 1, 4, 4), np.uint8))


VOTES = {"kind": "shard_votes", "sigma": 0.5, "epsilon": 8.0}


@pytest.mark.parametrize(("case", "answers"), MAX_ANSWERS.items())
@pytest.mark.parametrize("batch", [1, 64])
def test_the_ledger_refuses_exactly_at_the_reference_count(
    tmp_path: Path, case: tuple[int, float], answers: int, batch: int
) -> None:
    teachers, sigma = case
    rules = policy({**VOTES, "sigma": sigma, "levels": 8}, answers=10**6)
    ledger = begun(tmp_path, rules)
    mechanism = guarantee_of(rules, manifest({"kind": "shards", "shards": teachers}), ledger).mechanism

    def charge(count: int) -> Charge:
        return Charge(count, math.ceil(mechanism.cost() * count * MU2_UNIT))

    full = answers - 2 * batch if answers > 2 * batch else 0  # one bulk charge, then batch by batch
    if full:
        ledger.reserve("bulk", "p", charge(full))
    done, number = full, 0
    while "reserved" in type(ledger.reserve(str(number), "p", charge(batch))).__name__.lower():
        done, number = done + batch, number + 1
    assert done == full + (answers - full) // batch * batch


def test_a_gatekeeper_of_shards_answers_until_epsilon_is_spent_and_says_what_it_claims(tmp_path: Path) -> None:
    gatekeeper = opened(tmp_path, policy(VOTES), manifest(SHARDS), Shards())
    found = gatekeeper.describe(DescribeRequest())
    assert isinstance(found, Description)
    # mu^2 of an answer is 2 / (4 * 0.5)^2 = 0.5; 1.6660^2 / 0.5 = 5.55
    assert (found.answers_total, found.answers_left) == (5, 5)
    assert found.noise_sigma == 0.5
    assert found.claim.dp
    assert found.claim.epsilon == pytest.approx(8.0, rel=1e-6)
    assert (found.claim.delta, found.claim.unit, found.claim.relation) == (1e-5, "record", "add_remove")
    answer = gatekeeper.answer(asked(1, 3))
    assert isinstance(answer, Answer)
    assert answer.answers_left == 2  # of the noise budget, not of the 20,000 images
    again = gatekeeper.answer(asked(1, 3))
    assert isinstance(again, Answer)
    assert to_bytes(answer) == to_bytes(again)  # never fresh noise
    assert gatekeeper.answer(asked(2, 3)) == Refusal(RefusalCode.BUDGET, f"{2:032x}")
    assert isinstance(gatekeeper.answer(asked(3, 2)), Answer)
    assert gatekeeper.answer(asked(4, 1)) == Refusal(RefusalCode.BUDGET, f"{4:032x}")
    assert gatekeeper.ledger.verify().spent.mu2 == 5 * MU2_UNIT // 2


def test_a_broken_shard_abstains_because_an_error_would_tell_of_the_data(tmp_path: Path) -> None:
    gatekeeper = opened(tmp_path, policy({**VOTES, "sigma": 0.5}, bits=32), manifest(SHARDS), Shards(broken=True))
    assert isinstance(gatekeeper.answer(asked(1, 1)), Answer)


def test_noise_only_states_its_true_large_epsilon(tmp_path: Path) -> None:
    rules = policy({"kind": "noise_only", "sigma": 1.0, "epsilon": 10602.2}, answers=10**6)
    found = opened(tmp_path, rules, manifest(None), Shards()).describe(DescribeRequest())
    assert isinstance(found, Description)
    assert found.answers_total == 10_000


@pytest.mark.parametrize(
    ("mechanism", "privacy", "named"),
    [
        ({"kind": "dp_sgd", "epsilon": 4.0}, None, "no proof"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, SHARDS, "no proof"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "noise_source": "torch"}, "train the teacher again"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "unit": "person"}, "counts what each record loses"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "relation": "replace_one"}, "is no proof"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "history": []}, "is no proof"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "history": [[1.0, 1.5, 3]]}, "is no proof"),
        ({"kind": "dp_sgd", "epsilon": 4.0}, {**DP_SGD, "epsilon": 1.0}, "proves only 1.944"),
        ({"kind": "dp_sgd", "epsilon": 1.0}, DP_SGD, "comes to epsilon 1.94"),
        (VOTES, None, "disjoint shards"),
        (VOTES, DP_SGD, "disjoint shards"),
        (VOTES, {**SHARDS, "assignment": "index"}, "is no proof"),
        ({**VOTES, "delta": 1e-4}, SHARDS, "must be below 1 / 15000"),
    ],
)
def test_a_promise_that_teacher_or_data_cannot_keep_is_refused(
    tmp_path: Path, mechanism: dict[str, Any], privacy: dict[str, Any] | None, named: str
) -> None:
    rules = policy(mechanism)
    with pytest.raises(PolicyError, match=named):
        guarantee_of(rules, manifest(privacy), begun(tmp_path, rules))


def test_a_large_delta_needs_consent(tmp_path: Path) -> None:
    rules = policy({**VOTES, "delta": 1e-4, "accept_large_delta": True})
    assert guarantee_of(rules, manifest(SHARDS), begun(tmp_path, rules)).claim.delta == 1e-4


def test_no_promise_after_answers_without_one(tmp_path: Path) -> None:
    rules = policy(VOTES)
    ledger = begun(tmp_path, rules)
    ledger.reserve("a", "p", Charge(1, private=False))
    with pytest.raises(PolicyError, match="had no guarantee"):
        guarantee_of(rules, manifest(SHARDS), ledger)


def test_no_promise_after_exact_class_counts(tmp_path: Path) -> None:
    ledger = begun(tmp_path, policy(VOTES))
    report_class_counts(policy({"kind": "none"}, share_class_counts=True), manifest(SHARDS), ledger)
    with pytest.raises(PolicyError, match="had no guarantee"):
        guarantee_of(policy(VOTES), manifest(SHARDS), ledger)


def test_a_ledger_without_a_noise_budget_is_refused(tmp_path: Path) -> None:
    ledger = begun(tmp_path, policy({"kind": "none"}))
    with pytest.raises(PolicyError, match="no budget for noise"):
        guarantee_of(policy(VOTES), manifest(SHARDS), ledger)


def test_dp_sgd_answers_are_free_and_the_claim_is_the_policys(tmp_path: Path) -> None:
    rules = policy({"kind": "dp_sgd", "epsilon": 4.0})
    gatekeeper = opened(tmp_path, rules, manifest(DP_SGD), Shards())
    assert isinstance(gatekeeper.answer(asked(1, 100)), Answer)
    status = gatekeeper.ledger.status()
    assert (status.spent.mu2, status.unprotected, gatekeeper.guarantee.claim.epsilon) == (0, 0, 4.0)


def test_a_second_dp_sgd_teacher_of_the_same_data_composes_with_the_first(tmp_path: Path) -> None:
    generous, strict = (policy({"kind": "dp_sgd", "epsilon": epsilon}) for epsilon in (8.0, 2.0))
    ledger = begun(tmp_path, generous)
    for _ in range(2):
        record_training(manifest(DP_SGD, "a"), ledger)
    assert len(ledger.releases()) == 1
    assert guarantee_of(strict, manifest(DP_SGD, "a"), ledger).claim.epsilon == 2.0
    assert guarantee_of(generous, manifest(DP_SGD, "b"), ledger).claim.epsilon == 8.0
    with pytest.raises(PolicyError, match="all that leaves this population comes to epsilon 2.8.*2 DP-SGD teachers"):
        guarantee_of(strict, manifest(DP_SGD, "b"), ledger)


def test_noised_class_counts_are_charged_once_and_stay_the_same(tmp_path: Path) -> None:
    rules = policy({"kind": "none"}, share_class_counts=True, class_count_sigma=20.0)
    ledger = begun(tmp_path, rules)
    first, again = (report_class_counts(rules, manifest(None), ledger) for _ in range(2))
    assert first == again
    assert first is not None
    assert ledger.status().spent.mu2 == MU2_UNIT // 400
    assert np.abs(np.array(first.counts) - (5000, 4000, 3000, 2000, 1000)).max() < 20 * 8
    assert first.dp.epsilon == pytest.approx(gaussian_epsilon(0.05, 1e-5))


def test_class_counts_beyond_a_tightened_policy_are_refused_before_they_are_told(tmp_path: Path) -> None:
    ledger = begun(tmp_path, policy({**VOTES, "epsilon": 8.0}))
    tightened = policy({**VOTES, "epsilon": 1.0}, share_class_counts=True, class_count_sigma=1.0)
    with pytest.raises(PolicyError, match=r"comes to epsilon 4.377 .*class counts still to be shared 4.377"):
        guarantee_of(tightened, manifest(SHARDS), ledger)
    with pytest.raises(LedgerError, match="do not fit"):
        report_class_counts(tightened, manifest(SHARDS), ledger, limit=Budget(100, MU2_UNIT // 10))
    assert ledger.status().spent.mu2 == 0


def test_counts_of_records_are_not_told_under_a_promise_for_persons(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"share_class_counts": True, "class_count_sigma": 10.0}
    ledger = Ledger.create(tmp_path / "l.sqlite", POPULATION, 100, mu2=MU2_UNIT, unit="person")
    of_persons = manifest({**DP_SGD, "unit": "person"})
    for mechanism in ({"kind": "dp_sgd", "epsilon": 8.0}, {"kind": "none"}):
        with pytest.raises(PolicyError, match="does not cover all records of a person"):
            guarantee_of(policy(mechanism, **counts), of_persons, ledger)
    rules = policy({"kind": "dp_sgd", "epsilon": 8.0})
    assert guarantee_of(rules, of_persons, ledger).claim.unit == "person"
    with pytest.raises(PolicyError, match="share_class_counts: false"):  # before anything is trained
        check_training(policy({"kind": "dp_sgd", "epsilon": 8.0}, **counts), ledger, MONTHLY)


def test_what_was_spent_before_counts_together_with_class_counts(tmp_path: Path) -> None:
    ledger = begun(tmp_path, policy({**VOTES, "epsilon": 8.0}))
    ledger.reserve("a", "p", Charge(1, MU2_UNIT // 2, private=True))
    counts: dict[str, Any] = {"share_class_counts": True, "class_count_sigma": 1.0}
    both = gaussian_epsilon(math.sqrt(1.5), 1e-5)  # 5.66: either alone is within 5
    with pytest.raises(PolicyError, match=f"comes to epsilon {both:.4g} .*answers and counts so far"):
        guarantee_of(policy({**VOTES, "epsilon": 5.0}, **counts), manifest(SHARDS), ledger)
    enough = policy({**VOTES, "epsilon": 6.0}, **counts)
    limit = guarantee_of(enough, manifest(SHARDS), ledger).limit
    report_class_counts(enough, manifest(SHARDS), ledger, limit)
    assert guarantee_of(enough, manifest(SHARDS), ledger).limit == limit  # once told, they are not planned again
    assert ledger.status().spent.mu2 == 3 * MU2_UNIT // 2


def test_no_promise_after_answers_without_one_in_a_ledger_that_was_carried_over(tmp_path: Path) -> None:
    rules = policy({**VOTES, "epsilon": 1.0})
    ledger = begun(tmp_path, rules)
    ledger.carry("old: answers", Charge(7, private=False), "{}")
    with pytest.raises(PolicyError, match="7 releases of this population had no guarantee"):
        guarantee_of(rules, manifest(SHARDS), ledger)


def test_a_training_that_was_carried_over_leaves_less_for_noisy_answers(tmp_path: Path) -> None:
    rules = policy({**VOTES, "epsilon": 4.0})
    ledger = begun(tmp_path, rules)
    alone = guarantee_of(rules, manifest(SHARDS), ledger).limit.mu2
    ledger.carry("old: teacher", Charge(0, private=True, model="w"), json.dumps({"history": [[2.0, 0.02, 2000]]}))
    limit = guarantee_of(rules, manifest(SHARDS), ledger).limit.mu2
    assert 0 < limit < alone
    composed = composed_epsilon(limit / MU2_UNIT, 1e-5, [[(2.0, 0.02, 2000)]]).epsilon
    assert 3.95 < composed <= 4.0
    with pytest.raises(PolicyError, match="1 DP-SGD teacher"):
        guarantee_of(policy({**VOTES, "epsilon": 1.5}), manifest(SHARDS), ledger)


@pytest.mark.parametrize("privacy", [DP_SGD, {"kind": "shards", "shards": 100}])
@pytest.mark.parametrize("counts", [{}, {"share_class_counts": True, "class_count_sigma": 50.0}])
def test_descriptions_of_neighbours_are_equal_to_the_byte(
    tmp_path: Path, privacy: dict[str, Any], counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedcpsc.gatekeeper.releases.rounded_gaussian", lambda sigma, shape: np.zeros(shape, np.int64))
    kind = {"kind": "dp_sgd", "epsilon": 4.0} if privacy is DP_SGD else {**VOTES, "delta": 1e-5}
    said = []
    for records in (99_998, 99_999):
        folder = tmp_path / str(records)
        folder.mkdir()
        found = opened(folder, policy(kind, **counts), manifest(privacy, train_size=records), Shards(100)).describe(
            DescribeRequest()
        )
        assert isinstance(found, Description)
        said.append(to_bytes(dataclasses.replace(found, class_report=None)))  # its noise covers the one record
    assert said[0] == said[1]


def test_where_a_public_number_of_records_stands_the_private_one_decides_nothing(tmp_path: Path) -> None:
    rules = policy({"kind": "dp_sgd", "epsilon": 4.0})
    ledger = begun(tmp_path, rules)
    for records in (99_999, 100_000, 200_000):
        assert guarantee_of(rules, manifest(DP_SGD, train_size=records), ledger).claim.epsilon == 4.0
    with pytest.raises(PolicyError, match="must be below 1 / 100000"):  # an owner's refusal: shards have no such number
        guarantee_of(policy(VOTES), manifest(SHARDS, train_size=100_000), begun_again(tmp_path))


MONTHLY = [(1.89453125, 0.02, 500)]  # epsilon 0.999 at delta 1e-5
THAT_FIT = {1.0: 1, 1.9: 3, 2.0: 3, 4.0: 12}


@pytest.mark.parametrize(("budget", "fit"), THAT_FIT.items())
def test_monthly_trainings_are_refused_where_their_composition_passes_the_budget_and_forecast_before(
    tmp_path: Path, budget: float, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # dp-accounting is tighter by 0.01
    rules = policy({"kind": "dp_sgd", "epsilon": budget})
    ledger = begun(tmp_path, rules)
    for month in range(fit):
        assert trainings_that_fit(rules.mechanism, parts_with(rules, ledger), MONTHLY) == fit - month  # type: ignore[arg-type]
        check_training(rules, ledger, MONTHLY)
        note = json.dumps({"epsilon": 1.0, "delta": 1e-5, "history": MONTHLY})
        ledger.release(f"teacher:{month}", Charge(0, private=True, model=str(month)), note)
    assert trainings_that_fit(rules.mechanism, parts_with(rules, ledger), MONTHLY) == 0  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=rf"mechanism.epsilon={budget}.*{fit + 1} DP-SGD teachers.*smaller epsilon"):
        check_training(rules, ledger, MONTHLY)
    check_training(policy({"kind": "none"}), ledger, MONTHLY)  # which promises nothing


def test_a_training_after_unprotected_answers_is_refused_before_it_begins(tmp_path: Path) -> None:
    rules = policy({"kind": "dp_sgd", "epsilon": 8.0})
    ledger = begun(tmp_path, rules)
    ledger.reserve("a", "p", Charge(1, private=False))
    with pytest.raises(PolicyError, match="had no guarantee"):
        check_training(rules, ledger, MONTHLY)


@pytest.mark.parametrize(
    "mechanism",
    [
        {**VOTES, "sigma": 100.0},
        {"kind": "gnmax", "sigma": 9000.0, "epsilon": 8.0},
        {"kind": "confident_gnmax", "sigma": 8.0, "threshold": 3, "threshold_sigma": 9000.0, "epsilon": 8.0},
    ],
)
def test_noise_beyond_the_table_is_found_before_anything_is_charged(tmp_path: Path, mechanism: dict[str, Any]) -> None:
    rules = policy(mechanism)
    ledger = begun(tmp_path, rules)
    with pytest.raises(PolicyError, match=r"must be in \(0, 8192\]"):
        guarantee_of(rules, manifest(SHARDS), ledger)
    loud = policy({"kind": "none"}, share_class_counts=True, class_count_sigma=9000.0)
    with pytest.raises(PolicyError, match="class_count_sigma"):
        report_class_counts(loud, manifest(None), ledger)
    assert ledger.status().events == 1


def test_an_old_teacher_whose_noise_can_be_replayed_still_counts_in_the_ledger(tmp_path: Path) -> None:
    old = {"kind": "dp_sgd", "epsilon": 1.95, "delta": 1e-5, "n": 15_000, "history": [[2.0, 0.02, 2000]]}
    ledger = begun(tmp_path, policy({"kind": "none"}))
    record_training(manifest(old), ledger)
    assert not guarantee_of(policy({"kind": "none"}), manifest(old), ledger).claim.dp
    with pytest.raises(PolicyError, match="epsilon does not hold; train the teacher again; the new training composes"):
        guarantee_of(policy({"kind": "dp_sgd", "epsilon": 4.0}), manifest(old), ledger)
    with pytest.raises(PolicyError, match="2 DP-SGD teachers"):
        check_training(policy({"kind": "dp_sgd", "epsilon": 2.0}), ledger, MONTHLY)


def test_class_counts_that_the_budget_does_not_hold_are_an_error(tmp_path: Path) -> None:
    ledger = begun(tmp_path, policy({"kind": "none"}))
    rules = policy({"kind": "none"}, share_class_counts=True, class_count_sigma=20.0)
    with pytest.raises(LedgerError, match="do not fit"):
        report_class_counts(rules, manifest(None), ledger)


def test_decimal_sigmas_are_exact() -> None:
    section = policy(VOTES | {"sigma": 0.1}).mechanism
    assert section.exact_sigma == Fraction(1, 10)  # type: ignore[union-attr]


def test_gnmax_notes_its_realised_loss_for_the_owner_alone(tmp_path: Path) -> None:
    rules = policy({"kind": "confident_gnmax", "sigma": 8.0, "threshold": 60, "threshold_sigma": 30.0, "epsilon": 8.0})
    gatekeeper = opened(tmp_path, rules, manifest({"kind": "shards", "shards": 100}), Shards(100))
    account = OwnerAccount(tmp_path / "owner.jsonl")
    gatekeeper = dataclasses.replace(gatekeeper, owner_account=account)
    assert account.epsilon(1e-5) is None
    assert isinstance(gatekeeper.answer(asked(1, 20)), Answer)
    status = gatekeeper.ledger.status()
    realised = account.epsilon(1e-5)
    assert realised is not None
    charged = gaussian_epsilon(math.sqrt(status.spent.mu2 / MU2_UNIT), 1e-5)
    assert 0 < realised < charged / 2  # all teachers agree: almost nothing beyond the threshold tests
    assert account.path.stat().st_mode & 0o777 == 0o600
    assert "rdp" not in str(list(gatekeeper.ledger.export()))
