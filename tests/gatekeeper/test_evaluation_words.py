# SPDX-License-Identifier: Apache-2.0
"""What an owner is told of evaluations, by policy check and ledger show; and a ledger that is carried over."""

import contextlib

from support.judged_students import NOISE_ONLY, a_manifest, a_policy, begun, judging, judging_over, sent

from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.evaluation_promise import EVALUATION
from fedcpsc.gatekeeper.evaluation_words import evaluation_meaning, evaluation_warnings
from fedcpsc.gatekeeper.ledger_words import ledger_facts
from fedcpsc.gatekeeper.past_ledgers import carry_over, past_ledgers
from fedcpsc.gatekeeper.policy import POLICY_FILE, save_policy
from fedcpsc.gatekeeper.policy_check import check_policy
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.protocol.messages import Refusal
from fedcpsc.teachers.manifest import save_manifest

EXACT = {"evaluations": 3, "public_size": True}
NOISY = EXACT | {"sigma": 5.0}


def test_policy_check_says_what_servers_learn_and_what_to_think_twice_about(tmp_path):
    save_manifest(a_manifest(), tmp_path)
    save_policy(a_policy(EXACT), tmp_path / POLICY_FILE)
    report = check_policy(tmp_path)
    shown = " ".join(report.learns)
    assert "3 more students evaluated on your held-out images (of 3 over all time)" in shown
    assert "a student made for it can tell whether one image" in shown
    assert any("no later policy can promise an epsilon" in warning for warning in report.warnings)
    assert "how many held-out images there are" in report.shown
    mechanism = NOISE_ONLY | {"accept_large_delta": True}
    save_policy(a_policy(NOISY, mechanism=mechanism), tmp_path / POLICY_FILE)
    report = check_policy(tmp_path)
    alone = gaussian_epsilon((3 / 25) ** 0.5, 1e-5)
    assert f"come to epsilon {alone:.4g} by themselves" in " ".join(report.learns)
    assert report.epsilon == 4.0
    assert any("no noise covers it" in warning for warning in report.warnings)


def test_policy_check_counts_the_answers_that_remain_beside_the_evaluations(tmp_path):
    mechanism = NOISE_ONLY | {"accept_large_delta": True}
    found = []
    for evaluation in (None, NOISY):
        save_manifest(a_manifest(), tmp_path)
        save_policy(a_policy(evaluation, answers=10**6, mechanism=mechanism), tmp_path / POLICY_FILE)
        found.append(check_policy(tmp_path).answers)
    assert found[0] - found[1] in (150, 151)  # 3 / 25 of mu2, at 2 / 50^2 each


def test_nothing_is_said_of_a_policy_without_the_section(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(None))
    assert evaluation_meaning(None, gatekeeper.ledger, None) == []
    assert evaluation_warnings(None, dp=True) == []


def test_ledger_show_counts_evaluations(tmp_path):
    gatekeeper = judging(tmp_path, a_policy(NOISY, mechanism=NOISE_ONLY))
    gatekeeper.evaluate(sent(1))
    gatekeeper.evaluate(sent(1))
    gatekeeper.evaluate(sent(2, principal="other"))
    facts = ledger_facts(gatekeeper.ledger)
    assert (facts["evaluations"], facts["answers"]["spent"]) == (2, 0)
    assert facts["epsilon_spent"] is not None


def test_evaluations_of_a_ledger_that_was_set_aside_count_also_of_two_askers_with_one_id(tmp_path):
    policy = a_policy(EXACT)
    gatekeeper = judging(tmp_path, policy)
    for principal in ("a", "b"):
        gatekeeper.evaluate(sent(1, principal=principal))
    gatekeeper.close()
    (tmp_path / "past").mkdir()
    (tmp_path / "ledger.sqlite").rename(tmp_path / "past/ledger-x.sqlite")
    (tmp_path / "ledger.mark").unlink()
    with contextlib.closing(begun(tmp_path, policy, a_manifest())) as ledger:
        carry_over(past_ledgers(tmp_path)[0], ledger)
        assert ledger.charges_of(EVALUATION) == 2
        again = judging_over(ledger, policy, a_manifest())
        assert not isinstance(again.evaluate(sent(7)), Refusal)
        assert again.evaluate(sent(8)) == Refusal(RefusalCode.BUDGET, sent(8).query_id)
        ledger.verify()
    assert isinstance(Ledger.read(tmp_path / "ledger.sqlite").status().queries, int)
