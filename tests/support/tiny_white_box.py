# SPDX-License-Identifier: Apache-2.0
"""A white-box configuration of a second, for the tests."""

from __future__ import annotations

from fedcpsc.typed_yaml import validate
from fedcpsc.white_box.plan import WhiteBoxConfig


def tiny(**changed) -> WhiteBoxConfig:
    """With whole sections replaced."""
    tree = {
        "data": {"source": "digits"},
        "teacher": {"architecture": "convnet", "width": 4},
        "student": {"architecture": "convnet", "width": 3, "warm_up": 1, "learning_rate": 0.05},
        "generator": {"nz": 8, "ngf": 4, "milestones": [2, 3]},
        "epochs": 4,
        "iterations": 2,
        "batch_size": 8,
        "generator_steps": 2,
        "student_steps": 2,
    }
    return validate(WhiteBoxConfig, tree | changed, "test")
