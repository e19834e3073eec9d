# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of class biases measures: a student that leans gains, and a wrong assumption is seen to cost."""

import numpy as np
import pytest

import benchmarks.unlabelled as benchmark
from fedcpsc.data.images import ImageSet


class Leaning:
    """Stands for a run whose student knows much and leans towards the last classes."""

    def __init__(self, monkeypatch):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(4), 150)
        logits = 4 * np.eye(4)[labels] + rng.normal(0, 1.5, (600, 4)) + np.linspace(-3, 3, 4)
        odds = np.exp(logits)
        images = ImageSet(np.zeros((600, 1, 8, 8), np.uint8), labels, 4)
        run = type("Run", (), {"config": type("Config", (), {"seed": 1}), "result": {"student": {"accuracy": 0.5}}})
        monkeypatch.setattr(benchmark, "gather", lambda _: run)
        monkeypatch.setattr(benchmark, "evaluation_images", lambda _: images)
        monkeypatch.setattr(benchmark, "load_student", lambda _: type("Student", (), {"network": None}))
        monkeypatch.setattr(benchmark, "predict", lambda _, __: odds / odds.sum(1, keepdims=True))


@pytest.fixture
def cases(monkeypatch, tmp_path):
    Leaning(monkeypatch)
    return benchmark.figures(tmp_path)["cases"]


def test_a_leaning_student_gains_and_more_with_more_pictures(cases):
    before, after = cases["200 pictures"]
    assert after > before + 10
    assert after >= cases["20 pictures"][1] > before


def test_shares_that_are_stated_are_worth_more_than_a_wrong_assumption(cases):
    wrong, stated = (cases[f"200 pictures, Dirichlet 1, {how}"][1] for how in ("taken for even", "shares stated"))
    assert stated > wrong + 2
