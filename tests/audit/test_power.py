# SPDX-License-Identifier: Apache-2.0
"""How often the audit catches epsilon 4 behind a claim of 1, and how rarely it accuses epsilon 1; the tables agree.

Numbers of audits that refute are binomial. Each limit below is passed by chance with probability below 1e-5, at the
power measured over 5,000 audits of each size: 0.306, 0.775, 0.994.
"""

import json

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.audit_power import CLAIM, DELTA, SIZES, TRUTH, measured
from benchmarks.tables import audits
from benchmarks.tables.markdown import RESULTS
from fedcpsc.audit.power import Power, gaussian_power

REPETITIONS = 300
POWER = {(200, 80): 0.306, (500, 50): 0.775, (960, 192): 0.994}


def refuted(truth, canaries, guesses, claim=CLAIM):
    rng = np.random.default_rng()
    sizes = {"canaries": canaries, "guesses": guesses, "repetitions": REPETITIONS}
    return gaussian_power(truth, claim, DELTA, **sizes, rng=rng).refuted


@pytest.mark.parametrize("size", SIZES)
def test_epsilon_4_behind_a_claim_of_1_is_caught_as_often_as_is_reported(size):
    low, high = binom.ppf([5e-6, 1 - 5e-6], REPETITIONS, POWER[size])
    assert low <= refuted(TRUTH, *size) <= high


@pytest.mark.parametrize("size", SIZES)
def test_a_true_claim_is_accused_no_more_often_than_is_stated(size):
    """5 % at most by theorem, whatever the mechanism: more than 31 of 300 has probability below 1e-4 even then. A
    Gaussian mechanism is accused far less: none or one of 5,000 were."""
    assert binom.sf(31, REPETITIONS, 0.05) < 1e-4
    assert refuted(CLAIM, *size) <= 4


def test_a_claim_out_of_reach_is_never_refuted_whatever_the_truth():
    assert refuted(50.0, 500, 50, claim=8.0) == 0


def test_power_has_an_interval_with_both_ends():
    low, high = Power(164, 200, 43).interval
    assert (low, high) == pytest.approx((0.7596, 0.8706), abs=1e-4)
    assert Power(0, 200, None).interval[0] == 0.0
    assert Power(200, 200, 1).interval[1] == 1.0


def test_the_reported_figures_are_those_of_their_seed():
    stored = json.loads((RESULTS / "audit_power.json").read_text())
    again = measured(stored["seeds"]["simulation"])
    assert json.loads(json.dumps(again["rows"])) == stored["rows"]
    for row in stored["rows"]:
        size = row["canaries"], row["guesses"]
        assert row["caught_interval"][0] < POWER[size] < row["caught_interval"][1]


def test_the_table_of_reach_holds_the_pinned_figures():
    reach = {line.split(" | ")[0].strip("| "): line for line in audits.reach()[2:]}
    assert reach["50"] == "| 50 | 2.78 | 2.34 | 2.19 | 2.77 |"
    needed = {line.split(" | ")[0].strip("| "): line for line in audits.needed()[2:]}
    assert needed["8"] == "| 8 | 12,977 | no number | no number | no number |"


def test_the_table_of_what_attackers_recognise_is_of_the_stored_audit():
    assert [line.rsplit(" | ")[-1] for line in audits.found_at_one_percent()[2:]] == ["11.5 % |", "3.3 % |", "2.7 % |"]
