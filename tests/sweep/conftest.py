# SPDX-License-Identifier: Apache-2.0
"""Sweeps without a process: planned from a mapping, with runs' results made up."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_runs import SMOKE

from fedcpsc.sweep.expand import expand
from fedcpsc.sweep.plan import SweepPlan
from fedcpsc.sweep.table import Row
from fedcpsc.typed_yaml import validate

RULES = {"uniform": {"aggregation.rule": "uniform"}, "entropy": {"aggregation.rule": "entropy"}}


@pytest.fixture
def planned(tmp_path):
    """A function: keys of a plan -> its sweep in a folder of the test's."""

    def make(*, overrides=(), most_runs=None, folder: Path = tmp_path / "sweep", **keys):
        tree = {"config": str(SMOKE), "name": "rules", "seeds": [1, 2, 3], "settings": RULES} | keys
        return expand(validate(SweepPlan, tree, "plan"), folder, overrides, most_runs)

    return make


@pytest.fixture
def rows():
    """A function: a sweep and a student's accuracy by (setting, seed) -> its rows; the others have failed."""

    def make(sweep, students):
        start = {
            run.name: Row(
                run.setting.name, run.seed, run.setting.values, "failed", run=run.name, failure="DataError: gone"
            )
            for setting in sweep.settings
            for run in sweep.runs
            if run.setting is setting
        }
        done = {
            "state": "finished",
            "failure": "",
            "ensemble": 0.97,
            "best_teacher": 0.7,
            "answers": 40,
            "seconds": 2.5,
            "entropy": 0.9,
            "commit": "abc",
            "versions": {"fedcpsc": "0.1.0"},
        }
        return [
            replace(row, student=students[key], **done) if (key := (row.setting, row.seed)) in students else row
            for row in start.values()
        ]

    return make
