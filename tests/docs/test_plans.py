# SPDX-License-Identifier: Apache-2.0
"""Every setting of the accuracy benchmark's plans is a configuration that can be read."""

import pytest
from support.documented import ROOT

from benchmarks.accuracy_per_answer import settled
from fedcpsc.config import load_config
from fedcpsc.typed_yaml import read_yaml

SETTINGS = [
    (plan.name, setting)
    for plan in sorted((ROOT / "benchmarks/plans").glob("*.yaml"))
    for setting in read_yaml(plan).get("settings", [])
]


@pytest.mark.parametrize(("plan", "setting"), SETTINGS, ids=[f"{plan}: {one['name']}" for plan, one in SETTINGS])
def test_every_setting_of_a_plan_can_be_read(plan, setting):
    load_config(ROOT / setting["config"], settled(setting, "/data"))
