# SPDX-License-Identifier: Apache-2.0
"""Each shadow in turn against the others; bounds whose coins no score has seen; a verdict that follows the figures."""

import numpy as np
import pytest

from fedcpsc.audit.attacks.attack import ATTACKS
from fedcpsc.audit.attacks.lira_online import lira_online
from fedcpsc.audit.claims import held_against
from fedcpsc.audit.measure import attack_each_in_turn, bound, canary_scores, check_coins, check_enough, per_unit, row
from fedcpsc.audit.observations import Observations
from fedcpsc.audit.verdict import judge, strongest
from fedcpsc.errors import AuditError


def world(strength, shadows=32, images=200, seed=0):
    rng = np.random.default_rng(seed)
    member = rng.random((shadows, images)) < 0.5
    statistic = rng.normal(size=images) + rng.normal(size=member.shape) + strength * member
    return Observations(statistic, 1 / (1 + np.exp(-statistic)), statistic), member


NOBODY = Observations(np.zeros((32, 5)), np.full((32, 5), 0.5), np.zeros((32, 5)))


def test_each_shadow_is_attacked_with_all_the_others_and_none_with_itself():
    seen, member = world(1.0)
    scores = attack_each_in_turn(ATTACKS.get("lira_online"), seen, member, NOBODY)
    others = np.arange(32) != 7
    expected = lira_online(seen.statistic[7], seen.statistic[others], member[others])
    np.testing.assert_allclose(scores[7], expected)
    member[7] = ~member[7]  # its own coins are no part of its score
    np.testing.assert_allclose(attack_each_in_turn(ATTACKS.get("lira_online"), seen, member, NOBODY)[7], expected)


def test_audited_coins_enter_no_score():
    seen, member = world(1.0)
    before = canary_scores(seen, member, NOBODY, 10)
    member[:10] = ~member[:10]
    np.testing.assert_array_equal(canary_scores(seen, member, NOBODY, 10), before)


def test_without_leak_no_bound_and_with_a_plain_one_a_bound():
    """False alarm of each bound 5 %, of any of eight at a claim of 0.5 far less; the seeds are fixed."""
    for seed in range(8):
        seen, member = world(0.0, seed=seed)
        found = bound(canary_scores(seen, member, NOBODY, 16), member[:16], 0.1, 1e-5, 0.95)
        assert found["epsilon"] < 0.5
    seen, member = world(4.0)
    found = bound(canary_scores(seen, member, NOBODY, 16), member[:16], 0.1, 1e-5, 0.95)
    assert found["canaries"] == 16 * 200
    assert found["guesses"] == 320
    assert 2 < found["epsilon"] < 6


@pytest.mark.parametrize("canaries", [0, 1])
def test_no_canary_or_a_single_one_makes_a_bound_that_could_be_nothing_but_0(canaries):
    found = bound(np.zeros(canaries), np.ones(canaries, bool), 0.1, 1e-5, 0.95, "person")
    assert (found["canaries"], found["guesses"], found["unit"]) == (canaries, 0, "person")
    assert found["epsilon"] == found["reachable_epsilon"] == found["mu"] == found["reachable_mu"] == 0.0


@pytest.mark.parametrize("canaries", [2, 3, 5, 487, 500, 513])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_any_number_of_canaries_that_coins_may_give_is_guessed_about(canaries, share):
    found = bound(np.arange(canaries), np.arange(canaries) >= canaries // 2, share, 1e-5, 0.95)
    assert 2 <= found["guesses"] <= canaries
    assert found["correct"] == found["guesses"]
    assert found["epsilon"] == found["reachable_epsilon"]
    assert found["mu"] == found["reachable_mu"]


def test_a_persons_score_is_the_mean_over_its_records():
    scores = np.array([1.0, 5.0, 3.0, 2.0])
    assert per_unit(scores, np.array([0, 1, 0, 2])).tolist() == [2.0, 5.0, 2.0]
    assert per_unit(scores, np.arange(4)).tolist() == scores.tolist()  # every record stands for itself
    assert per_unit(np.zeros(0), np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("units", [[0, 2, 2], [0, 1], [1, 1, 1]])
def test_a_unit_without_a_record_or_a_record_without_a_unit_is_an_error(units):
    with pytest.raises(AuditError, match="no unit without a record"):
        per_unit(np.zeros(3), np.array(units))


def test_a_row_pools_all_targets():
    seen, member = world(6.0)
    made = row(attack_each_in_turn(ATTACKS.get("loss"), seen, member, NOBODY), member, [0.1, 0.01], {"policy": "p"})
    assert made["policy"] == "p"
    assert made["auc"] > 0.99
    assert made["tpr_at"]["0.1"] >= made["tpr_at"]["0.01"] > 0.5
    assert (made["targets"], made["members"] + made["non_members"]) == (32, 32 * 200)
    assert made["curve"]["tpr"] == sorted(made["curve"]["tpr"])


def test_too_few_scores_or_coins_are_named():
    check_enough(10_000, 500, [0.01, 0.001], "")
    with pytest.raises(AuditError, match="needs 10,000 .* there are 9,999 .*raise the pool, or ask for 0.001 or more"):
        check_enough(9_999, 500, [0.01, 0.001], "raise the pool")
    with pytest.raises(AuditError, match="only 1 of them"):
        check_coins(np.array([[True, True], [False, True], [True, False]]), "train more")


def bounds_of(claimed, epsilon):
    found = {
        "policy": "DP-SGD 1",
        "surface": "teacher",
        "unit": "record",
        "canaries": 500,
        "guesses": 50,
        "delta": 1e-5,
        "epsilon": epsilon,
        "reachable_epsilon": 2.77,
        "confidence": 0.95,
    }
    return found | held_against(found, claimed, None if claimed is None else "record", 0.1)


def test_the_verdict_follows_the_figures():
    def told(*bounds):
        return judge({"bounds": list(bounds), "rows": []})

    broken = told(bounds_of(1, 2.5), bounds_of(2, 0.3))
    assert broken["violation"]
    assert "claims epsilon 1 per record, but shows at least 2.50 per record" in broken["text"]
    assert "0.30 per record of epsilon 2" in broken["text"]
    held = told(bounds_of(1, 0.99))
    assert not held["violation"]
    assert held["testable"]
    assert "No attack contradicts these claims, which this audit could have refuted" in held["text"]
    assert "(could have shown up to 2.77)" in held["text"]
    untested = told(bounds_of(8, 0.3))
    assert not untested["testable"]
    assert not untested["violation"]
    assert "NOT TESTED" in untested["text"]
    assert "contradicts" not in untested["text"]
    both = told(bounds_of(8, 0.3), bounds_of(1, 0.3))
    assert not both["testable"]
    assert both["text"].index("NOT TESTED") < both["text"].index("No attack contradicts")
    assert "Nothing with a claim" in told(bounds_of(None, 9.0))["text"]


def test_the_strongest_is_of_the_most_answers():
    def entry(attack, answers, tpr):
        return {"policy": "p", "surface": "student", "attack": attack, "answers": answers, "tpr_at": {"0.01": tpr}}

    rows = [entry("lira_online", 10, 0.9), entry("loss", 20, 0.1), entry("lira_online", 20, 0.3)]
    assert strongest(rows) == [rows[2]]
