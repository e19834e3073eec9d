# SPDX-License-Identifier: Apache-2.0
"""What tells accuracy without test images: the figures' arithmetic, and that the product uses the measured ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import evaluation, tiny_config

from benchmarks.estimates import AGREEMENT, left_out_error, line, quantities, summary
from fedcpsc.distillation.estimate import ERROR, LINE
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport

RESULTS = Path(__file__).parents[2] / "benchmarks/results/estimates.json"


def test_errors_that_follow_the_line_are_predicted_and_a_kind_that_does_not_is_not():
    x = np.array([0.2, 0.3, 0.5, 0.6, 0.8, 0.9])
    kind = np.array([0, 0, 1, 1, 2, 2])
    accuracy = 100 - np.exp(4.5 - 4 * x)
    assert line(x, accuracy) == pytest.approx((4.5, -4.0))
    assert left_out_error(x, accuracy, kind) == pytest.approx(0, abs=1e-6)
    accuracy[kind == 2] = 50
    assert left_out_error(x, accuracy, kind) > 10


def test_the_summary_ranks_quantities_by_their_error():
    rng = np.random.default_rng(0)
    rows = []
    for n in range(12):
        told = n / 12
        rows.append(
            {
                "kind": "abcd"[n // 3],
                "run": str(n),
                "accuracy": 100 - np.exp(4.5 - 4 * told),
                AGREEMENT: told,
                "noise": rng.random(),
            }
        )
    found = summary(rows)
    assert [one["quantity"] for one in found["found"]] == [AGREEMENT, "noise"]
    assert found["found"][0]["rank_runs"] == 1
    assert found["kinds"] == 4
    assert found["guessed"] > 5


def test_of_a_finished_run_every_quantity_is_a_finite_share(tmp_path):
    config = tiny_config(silos__count=3, queries__answers_per_silo=240)
    distill(config, LocalTransport([FakeSilo(name) for name in "abc"]), tmp_path, evaluation=evaluation())
    found = quantities(tmp_path)
    assert 0 <= found.pop("accuracy") <= 100
    for name, value in found.items():
        assert 0 <= value <= 1, name


def test_the_product_estimates_by_the_line_that_was_measured():
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert pytest.approx(measured["line"], abs=0.01) == LINE
    best = next(one for one in measured["found"] if one["quantity"] == AGREEMENT)
    assert round(best["error"]) == pytest.approx(100 * ERROR)
    assert best["rank_runs"] >= 0.8
