# SPDX-License-Identifier: Apache-2.0
"""Likeness of copies, against answers and what they cost."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from scipy.special import rel_entr

from fedcpsc.audit.stealing import answers_epsilon, likeness, stealing_curve
from fedcpsc.errors import AuditError
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.privacy.votes import ShardVotes

TEACHER = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.1, 0.0]])
COPY = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])


def test_likeness_is_what_its_formulas_say():
    found = likeness(TEACHER, COPY, [0, 1, 1, 0])
    assert (found.agreement, found.accuracy, found.teacher_accuracy) == (0.75, 0.5, 0.75)
    assert found.kl == pytest.approx(rel_entr(TEACHER, COPY).sum(1).mean())


def test_a_perfect_copy_and_one_that_rules_out_what_the_teacher_says():
    same = likeness(TEACHER, TEACHER)
    assert (same.agreement, same.kl, same.accuracy, same.teacher_accuracy) == (1.0, 0.0, None, None)
    wrong = likeness([[1.0, 0.0]], [[0.0, 1.0]])
    assert wrong.kl == pytest.approx(-math.log(1e-12))


def test_the_curve_is_sorted_by_answers_with_what_the_ledger_charged():
    mechanism = ShardVotes(50, Fraction(1, 10), levels=64)
    epsilon_of = partial(answers_epsilon, cost=mechanism.cost(), delta=1e-5)
    curve = stealing_curve(TEACHER, [(1000, TEACHER), (100, COPY)], epsilon_of=epsilon_of)
    assert [point.answers for point in curve] == [100, 1000]
    assert [point.likeness.agreement for point in curve] == [0.75, 1.0]
    # the table of the mean of 50 teachers with sigma 0.1: 15.46 after 100 answers, 77.33 after 1,000
    assert [point.epsilon for point in curve] == pytest.approx([15.456155822609329, 77.33009057916195])
    assert stealing_curve(TEACHER, [(1, COPY)])[0].epsilon is None


def test_answers_cost_nothing_where_there_are_none_or_they_are_free():
    assert answers_epsilon(0, Fraction(1), 1e-5) == answers_epsilon(10**6, Fraction(0), 1e-5) == 0.0
    assert answers_epsilon(4, Fraction(1, 4), 1e-5) == gaussian_epsilon(1.0, 1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: likeness(TEACHER, COPY[:2]), "teacher, copy="),
        (lambda: likeness(TEACHER[:0], COPY[:0]), "teacher, copy="),
        (lambda: likeness(TEACHER, COPY * np.nan), "must be finite"),
        (lambda: likeness(TEACHER, COPY, [0, 1]), "labels="),
        (lambda: answers_epsilon(-1, 1.0, 1e-5), "answers, cost="),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(AuditError, match=message):
        call()
