# SPDX-License-Identifier: Apache-2.0
import pytest
from support.run_results import result

from fedcpsc.commands.seeds_summary import summarise


def test_mean_and_sample_deviation_of_each_figure():
    summary = summarise("digits", [result(1, 0.8, 0.9), result(2, 0.9, 0.9), result(3, 1.0, 0.9)])
    assert summary["seeds"] == [1, 2, 3]
    assert summary["student"]["mean"] == pytest.approx(0.9)
    assert summary["student"]["std"] == pytest.approx(0.1)
    assert summary["student"]["values"] == [0.8, 0.9, 1.0]
    assert summary["ensemble"]["std"] == pytest.approx(0)
    assert summary["best_teacher"]["mean"] == pytest.approx(0.8)
    assert summary["seconds"]["mean"] == pytest.approx(131.4)


def test_one_seed_has_no_spread():
    summary = summarise("digits", [result()])
    assert (summary["student"]["mean"], summary["student"]["std"]) == (0.9, None)


def test_a_figure_that_one_seed_lacks_has_no_mean():
    summary = summarise("digits", [result(1), result(2, student=None, ensemble=None)])
    for figure in ("student", "ensemble", "best_teacher"):
        assert summary[figure]["mean"] is None
