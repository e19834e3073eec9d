# SPDX-License-Identifier: Apache-2.0
"""A whole audit in a second or two, for the tests."""

from __future__ import annotations

from typing import Any

from fedcpsc.audit.plan import AuditConfig

TINY: dict[str, Any] = {
    "name": "tiny",
    "pool": 120,
    "shadows": {"count": 24, "width": 32, "epochs": 60, "learning_rate": 5e-3},
    "students": {"answers": [40, 80], "steps": 40, "width": 16},
    "policies": [{"kind": "probabilities"}],
    "fprs": [0.05],
    "canaries": {"count": 20, "audited": 8},
    "threads": 1,
}

BROKEN: dict[str, Any] = {  # claims epsilon 1, and trains without noise
    "kind": "dp_sgd",
    "epsilon": 1,
    "noise_multiplier": 0,
    "max_grad_norm": 10,
    "epochs": 40,
    "batch_size": 30,
    "learning_rate": 1e-2,
}


def tiny(**changed: Any) -> AuditConfig:
    """The configuration, with whole sections replaced."""
    return AuditConfig.model_validate(TINY | changed)


def said(done: int, total: int, text: str) -> None:
    """Progress that nobody looks at."""
