# SPDX-License-Identifier: Apache-2.0
"""What tells accuracy without test images: the figures' arithmetic, and that the product uses the measured ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import evaluation, tiny_config

from benchmarks.estimates import AGREEMENT, BOTH, STEADFASTNESS, left_out_error, line, quantities, summary
from fedcpsc.distillation.estimate import ERROR, LINE
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport

RESULTS = Path(__file__).parents[2] / "benchmarks/results/estimates.json"


def share_of(x):
    return 100 / (1 + np.exp(-(-2 + 5 * x)))


def test_shares_that_follow_the_line_are_predicted_and_a_kind_that_does_not_is_not():
    x = np.array([0.2, 0.3, 0.5, 0.6, 0.8, 0.9])
    kind, share = np.array([0, 0, 1, 1, 2, 2]), share_of(x)
    assert line(x[None], share) == pytest.approx((-2, 5))
    assert left_out_error(x[None], share, kind) == pytest.approx(0, abs=1e-6)
    share[kind == 2] = 50
    assert left_out_error(x[None], share, kind) > 10


def test_the_summary_ranks_quantities_by_the_error_of_the_share():
    rng, rows = np.random.default_rng(0), []
    for n in range(12):
        told, steady = n / 12, rng.random() / 10
        share = share_of(np.array(told + steady))
        known = {"kind": "abcd"[n // 3], "run": str(n), "accuracy": 0.9 * share, "ensemble": 90.0}
        rows.append({**known, AGREEMENT: told, STEADFASTNESS: steady, "noise": rng.random()})
    found = summary(rows)
    assert [one["quantity"] for one in found["found"]][:2] == ["the two together", AGREEMENT]
    assert found["found"][0]["error_share"] == 0
    assert found["found"][0]["rank_share"] == 1
    assert found["line"] == pytest.approx([-2, 5, 5], abs=0.01)
    assert found["kinds"] == 4
    assert found["guessed_share"] > 5


def test_of_a_finished_run_every_quantity_is_a_finite_share(tmp_path):
    config = tiny_config(silos__count=3, queries__answers_per_silo=240)
    distill(config, LocalTransport([FakeSilo(name) for name in "abc"]), tmp_path, evaluation=evaluation())
    found = quantities(tmp_path)
    assert 0 <= found.pop("accuracy") <= 100
    assert found.pop("ensemble") == 0  # fakes show nobody how good they are
    for name, value in found.items():
        assert 0 <= value <= 1, name


def test_the_product_estimates_by_the_line_that_was_measured():
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert pytest.approx(measured["line"], abs=0.01) == list(LINE)
    both = next(one for one in measured["found"] if one["quantity"] == BOTH)
    assert round(both["error_share"]) == pytest.approx(100 * ERROR)
    assert both["rank_kinds"] >= 0.8
