# SPDX-License-Identifier: Apache-2.0
"""Every plan of the accuracy benchmark is a sweep whose configurations can be read."""

import pytest
from support.documented import ROOT

from benchmarks.accuracy_per_answer import plan_of
from fedcpsc.sweep.expand import expand

PLANS = [path for path in sorted((ROOT / "benchmarks/plans").glob("*.yaml")) if path.stem != "aggregation"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_a_sweep_that_can_be_read(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = expand(plan_of(path, "/data"), tmp_path)
    assert len(sweep.runs) == len(sweep.settings) * len(sweep.plan.seeds)
    assert all("{data}" not in str(run.config.data.path) for run in sweep.runs)
