# SPDX-License-Identifier: Apache-2.0
"""Values that the configuration derives where a file leaves them blank."""

import pytest

from fedcpsc.config import RunConfig


@pytest.mark.parametrize(
    ("answers", "rounds", "given", "in_a_round", "in_the_end"),
    [(5000, 20, None, 40, 3000), (867, 10, None, 40, 3000), (20000, 20, None, 160, 12000), (20000, 20, 25, 25, 25)],
)
def test_a_larger_budget_is_fitted_for_longer_unless_the_file_says_otherwise(
    answers, rounds, given, in_a_round, in_the_end
):
    config = RunConfig.model_validate(
        {
            "queries": {"answers_per_silo": answers, "rounds": rounds},
            "student": {"steps_per_round": given, "final_steps": given},
        }
    )
    assert (config.steps_per_round, config.final_steps) == (in_a_round, in_the_end)
