# SPDX-License-Identifier: Apache-2.0
"""A result.json and a line of metrics.jsonl, as the engine writes them."""

from __future__ import annotations

from typing import Any


def result(seed: int = 1, student: float | None = 0.9, ensemble: float | None = 0.95) -> dict[str, Any]:
    silo = {
        "id": "silo-0",
        "teacher_accuracy": None if ensemble is None else 0.8,
        "train_size": 640,
        "answers": 5000,
        "refusals": {},
        "dp": False,
        "epsilon": None,
        "unit": None,
    }
    private = silo | {
        "id": "silo-1",
        "dp": True,
        "epsilon": 3.5,
        "unit": "record",
        "refusals": {"budget": 2},
        "train_size": None,
    }
    if ensemble is not None:
        private["teacher_accuracy"] = 0.7
    return {
        "schema": 2,
        "name": "digits",
        "student": {"accuracy": student},
        "ensemble": {"accuracy": ensemble, "rule": "uniform"},
        "silos": [silo, private],
        "answers_per_silo": 5000,
        "bytes_sent": 2_000_000,
        "bytes_received": 53_400,
        "seconds": {"total": 131.4, "distillation": 100.0, "waiting": 31.4},
        "seed": seed,
        "versions": {"torch": "2"},
        "commit": "abc",
    }


def line(**changed: Any) -> dict[str, Any]:
    return {
        "phase": "round",
        "round": 2,
        "rounds": 4,
        "bank": 2500,
        "answers_used": 2500,
        "answers_budget": 5000,
        "entropy": 0.9,
        "alarm": False,
        "seconds": 10.0,
        "seconds_left": 75.2,
        "share_done": 0.4,
        "student_accuracy": 0.5,
        "ensemble_accuracy": 0.95,
    } | changed
