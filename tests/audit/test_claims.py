# SPDX-License-Identifier: Apache-2.0
"""Three outcomes for each claim; like is compared with like."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.tiny_audit import tiny

from fedcpsc.audit.claims import NOT_CONTRADICTED, NOT_TESTED, REFUTED, held_against, outcome_in_words
from fedcpsc.audit.earlier import completed
from fedcpsc.audit.planned import (
    confidence_from_scratch,
    confidence_over_run,
    in_vain_from_scratch,
    in_vain_over_run,
)
from fedcpsc.audit.reach import reachable_epsilon

DIGITS = Path(__file__).parents[2] / "benchmarks/results/audit_digits.json"
OUTCOME = ("outcome", "testable", "guesses_needed")
DP_SGD_8 = {"kind": "dp_sgd", "epsilon": 8}


def found(epsilon=0.5, *, unit="record", canaries=500, guesses=50, confidence=0.95):
    reach = reachable_epsilon(canaries, guesses, 1e-5, confidence)
    facts = {"unit": unit, "canaries": canaries, "guesses": guesses, "delta": 1e-5, "confidence": confidence}
    return facts | {"epsilon": epsilon, "reachable_epsilon": reach}


def held(bound, claim, claimed_unit="record", share=0.1):
    return bound | held_against(bound, claim, claimed_unit, share)


def test_a_bound_above_the_claim_refutes_it():
    bound = held(found(2.0), 1.0)
    assert (bound["outcome"], bound["violated"], bound["testable"]) == (REFUTED, True, True)
    assert outcome_in_words(bound).startswith("claims epsilon 1 per record, but shows at least 2.00 per record")


def test_a_bound_below_a_claim_within_reach_says_how_far_it_could_have_gone():
    bound = held(found(0.5), 1.0)
    assert (bound["outcome"], bound["violated"], bound["testable"]) == (NOT_CONTRADICTED, False, True)
    assert "at least 0.50 per record of epsilon 1 per record (could have shown up to 2.77)" in outcome_in_words(bound)


def test_a_claim_out_of_reach_was_not_tested_and_the_words_say_what_would_do():
    bound = held(found(), 3.0)
    assert (bound["outcome"], bound["violated"], bound["testable"]) == (NOT_TESTED, False, False)
    words = outcome_in_words(bound)
    assert "could not be tested: with 50 guesses this audit could have shown at most 2.77 < 3" in words
    assert "needs about 63 guesses, of 630 canaries" in words


def test_500_canaries_do_not_test_a_claim_of_8_and_a_tenth_of_any_number_never_would():
    bound = held(found(), 8.0)
    assert bound["guesses_needed"] == 12_977
    assert "at most 2.77 < 8; a test needs about 13,000 guesses with every canary guessed at" in outcome_in_words(bound)
    shared = held(found(confidence=0.99), 8.0)
    assert shared["guesses_needed"] is None
    words = outcome_in_words(shared)
    assert "out of reach of any number of guesses at delta 1e-05 and confidence 99.00%" in words
    assert "held alone against its bound, at 95%, it needs about 13,000" in words


@pytest.mark.parametrize(("canaries", "words"), [(0, "no canary was planted"), (1, "a single canary is too few")])
def test_a_claim_without_guesses_was_not_tested(canaries, words):
    bound = held(found(0.0, canaries=canaries, guesses=0), 1.0)
    assert bound["outcome"] == NOT_TESTED
    assert words in outcome_in_words(bound)


def test_without_a_claim_there_is_no_outcome():
    bound = held(found(2.0), None, None)
    assert (bound["outcome"], bound["violated"], bound["testable"], bound["guesses_needed"]) == (
        None,
        False,
        None,
        None,
    )


def test_a_bound_over_records_refutes_a_claim_for_persons_but_says_less_where_it_does_not():
    assert held(found(2.0), 1.0, "person")["outcome"] == REFUTED
    below = held(found(0.5), 1.0, "person")
    assert below["outcome"] == NOT_CONTRADICTED
    assert "says less of persons" in outcome_in_words(below)
    assert "says less" not in outcome_in_words(held(found(0.5, unit="person"), 1.0, "person"))


def test_a_bound_over_persons_says_nothing_of_a_claim_for_records():
    bound = held(found(2.0, unit="person"), 1.0, "record")
    assert (bound["outcome"], bound["violated"]) == (NOT_TESTED, False)
    assert "says nothing of single records" in outcome_in_words(bound)


def test_a_plan_that_cannot_refute_a_claim_is_told_before_it_runs():
    """8 shadows of 20 canaries, a tenth guessed at: 16 guesses at 97.5 %, which reach 1.35."""
    plan = tiny(policies=[DP_SGD_8, {"kind": "label"}])
    assert confidence_from_scratch(plan) == pytest.approx(0.975)
    teacher, student = in_vain_from_scratch(plan)
    assert teacher.startswith(
        "DP-SGD 8, teacher: the claim of epsilon 8 per record could not be tested: with 16 guesses"
    )
    assert student.startswith("DP-SGD 8, student: ")
    assert in_vain_from_scratch(tiny(policies=[DP_SGD_8 | {"epsilon": 1}])) == []
    none = tiny(policies=[DP_SGD_8 | {"epsilon": 1}], canaries={"count": 0}, surfaces=["teacher"])
    assert "no canary was planted" in in_vain_from_scratch(none)[0]


def test_silos_whose_canaries_cannot_refute_their_claims_are_told_by_name_and_unit():
    """Five silos with a claim, teachers and students: 99.5 % each, at which 50 guesses reach 2.14."""

    def silo(number, claim, unit="person", canaries=500):
        coins = np.zeros(canaries, bool)
        return SimpleNamespace(name=f"silo-{number}", claim=claim, unit=unit, coins=coins, delta=1e-5)

    silos = [silo(0, 8.0), silo(1, 2.1, "record"), silo(2, 2.2), silo(3, 1.0), silo(4, 1.0), silo(5, None, canaries=0)]
    assert confidence_over_run(tiny(), silos) == pytest.approx(0.995)
    told = in_vain_over_run(tiny(), silos)
    assert [text.split(":")[0] for text in told] == [
        f"silo-{number}, {surface}" for number in (0, 2) for surface in ("teacher", "student")
    ]
    assert "the claim of epsilon 8 per person could not be tested: with 50 guesses" in told[0]
    assert "at most 2.14 < 8" in told[0]
    coinless = in_vain_over_run(tiny(), [silo(0, 1.0, canaries=0)])
    assert "no canary was planted" in coinless[0]


def test_an_audit_of_before_is_completed_from_its_guesses_and_judged_anew():
    audit = json.loads(DIGITS.read_text())
    old = copy.deepcopy(audit)
    old["verdict"] = {"violation": False, "text": "No attack contradicts these claims of epsilon: ..."}
    for bound in old["bounds"]:
        for key in ("unit", "reachable_epsilon", "reachable_mu", "claimed_unit", "guessed_share", *OUTCOME):
            del bound[key]
    assert completed(old) == audit
    assert completed(audit) is audit
    assert not audit["verdict"]["testable"]
    assert "NOT TESTED: DP-SGD 8, teacher" in audit["verdict"]["text"]
