# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from fedcpsc.privacy.accounting import rdp_epsilon
from fedcpsc.privacy.gnmax import (
    ORDERS,
    epsilon_of_curve,
    log_chance_of_another_winner,
    realised_curve,
    realised_rdp,
)

FEW = [2, 4, 8, 16]

# Reference values of an independent implementation, sigma 8.
CASES = [
    (
        [80, 15, 5] + [0] * 7,
        -19.194662860296894,
        [1.8358587196113277e-08, 5.0493028202218426e-08, 1.5787467572663992e-06, 0.005105291668044522],
    ),
    (
        [98, 2] + [0] * 8,
        -38.069191390564214,
        [2.154110134484966e-16, 1.1422110060057473e-15, 2.283855427081216e-13, 2.7604742631766507e-08],
    ),
]


@pytest.mark.parametrize(("votes", "logq", "rdp"), CASES)
def test_the_realised_bound_matches_the_reference(votes: list[int], logq: float, rdp: list[float]) -> None:
    found = log_chance_of_another_winner(np.array(votes), 8.0)
    assert found == pytest.approx(logq, rel=1e-12)
    np.testing.assert_allclose(realised_rdp(found, 8.0, FEW), rdp, rtol=1e-9, atol=3e-16)


def test_a_tie_costs_as_much_as_any_answer_and_a_landslide_nothing() -> None:
    tie = log_chance_of_another_winner(np.array([5, 5, 0]), 8.0)
    np.testing.assert_allclose(realised_rdp(tie, 8.0, FEW), [0.03125, 0.0625, 0.125, 0.25])
    assert realised_rdp(-math.inf, 8.0, FEW).tolist() == [0, 0, 0, 0]


def test_it_is_never_above_the_bound_that_knows_no_votes() -> None:
    votes = np.random.default_rng(0).multinomial(100, [0.5, 0.3, 0.1, 0.1], 200)
    curve = realised_curve(votes, 16.0)
    assert (curve <= 200 * np.array(ORDERS) / 16.0**2 + 1e-12).all()
    assert epsilon_of_curve(curve, 1e-5) <= rdp_epsilon(200 * 2 / 16.0**2, 1e-5) * (1 + 1e-9)
