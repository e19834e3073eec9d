# SPDX-License-Identifier: Apache-2.0
"""The measuring script understands what an earlier revision's code returns."""

import pytest

from fedcpsc.bench.probe import images_answered


@pytest.mark.parametrize("result", [{"answers_per_silo": 400}, {"queries_per_silo": 400}], ids=["this", "earlier"])
def test_the_answers_of_a_run_are_found_under_the_name_that_its_revision_gave_them(result):
    assert images_answered(result) == 400
