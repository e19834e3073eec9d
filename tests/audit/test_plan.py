# SPDX-License-Identifier: Apache-2.0
"""The plan says no before anything is computed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fedcpsc.audit.plan import AuditConfig
from fedcpsc.errors import ConfigError
from fedcpsc.typed_yaml import load_as, save_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("audit_*.yaml")), ids=lambda path: path.stem)
def test_every_audit_file_loads_and_survives_saving(path, tmp_path):
    config = load_as(AuditConfig, path, ["seed=7"])
    assert config.seed == 7
    save_config(config, tmp_path / "again.yaml")
    assert load_as(AuditConfig, tmp_path / "again.yaml") == config


def test_names_tell_policies_apart():
    kinds = [
        {"kind": "probabilities", "bits": 32},
        {"kind": "probabilities"},
        {"kind": "top_k", "top_k": 2},
        {"kind": "label"},
        {"kind": "dp_sgd", "epsilon": 1},
        {"kind": "dp_sgd", "epsilon": 1, "noise_multiplier": 0},
    ]
    config = AuditConfig.model_validate({"policies": kinds})
    assert len({policy.name for policy in config.policies}) == 6
    assert [policy.claimed for policy in config.policies] == [None, None, None, None, 1, 1]
    with pytest.raises(ValidationError, match="must differ"):
        AuditConfig.model_validate({"policies": [kinds[3], kinds[3]]})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("shadows.cuont=3", "nearest valid one is 'count'"),
        ("policies=[{kind: dp_sgd}]", "epsilon"),
        ("policies=[]", "at least one"),
        ("students.answers=[100, 50]", "must rise"),
        ("fprs=[0]", "greater than 0"),
        ("canaries.audited=63", "at least 2 of 64 shadows"),
        ("surfaces=[generator]", "teacher"),
        ("attacks=[loss]", "add lira_online"),
        ("attacks=[label_only]", "add lira_online"),
    ],
)
def test_what_is_wrong_is_named(item, message):
    with pytest.raises(ConfigError, match=message):
        load_as(AuditConfig, ROOT / "configs/audit_digits.yaml", [item])
