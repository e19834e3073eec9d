# SPDX-License-Identifier: Apache-2.0
"""Silos that lie beside those of a run, and take no part in it, are told of."""

from fedcpsc.config import RunConfig
from fedcpsc.silos.make import make_silos


def made(base, count, only=None):
    tree = {
        "data": {"train_limit": 90, "test_limit": 20},
        "silos": {"count": count, "partition": {"kind": "iid"}},
        "teachers": {"width": 4, "epochs": 1},
        "runtime": {"device": "cpu", "threads": 1},
    }
    told = []
    make_silos(RunConfig.model_validate(tree), base, only=only, tell=told.append)
    return told


def test_silos_beyond_the_number_of_the_configuration_are_told_of(tmp_path):
    assert made(tmp_path, 3) == []
    (tmp_path / "12").mkdir()
    assert made(tmp_path, 1) == [f"2 more silo(s) in {tmp_path} take no part, for silos.count is 1: 1, 2"]
    assert made(tmp_path, 1, only=0) == [], "an owner makes one silo alone"
