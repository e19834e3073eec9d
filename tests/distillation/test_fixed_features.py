# SPDX-License-Identifier: Apache-2.0
"""Features that no weight changes are computed once, and the student is the one of features computed at each step."""

import numpy as np
import pytest
import torch
from support.tiny_runs import brightness_bank, tiny_config

from fedcpsc.data.images import to_pixels
from fedcpsc.distillation import fixed_features, steps
from fedcpsc.distillation.fixed_features import may_be_kept
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.scattering import ScatteringClassifier
from fedcpsc.runs.answer_bank import AnswerBank

CPU = torch.device("cpu")
NONE = np.zeros(0, np.int64)


def student(**changes):
    named = {"architecture": "scattering", "shift": 0, "precision": "float32"} | changes
    return tiny_config(**{f"student__{name}": value for name, value in named.items()}).student


@pytest.fixture
def bank(tmp_path):
    return brightness_bank(tmp_path)


def fitted(bank):
    member, *_ = make_committee(student(), 3, (1, 8, 8), 1, CPU)
    reader = BankReader(bank, CPU)
    losses = [fit(member, student(), reader, np.arange(80), NONE, 30, 5)]
    losses += [fit(member, student(), reader, np.arange(80), np.arange(80, 160), 30, 6, fresh_share=0.3)]
    return torch.cat(losses), member.network.state_dict()


def test_features_that_no_weight_changes_are_computed_once_and_give_the_same_student(bank, monkeypatch):
    """The curve of a scattering student with kept features is that of one that computes them at each step."""
    seen = []
    features = ScatteringClassifier.features
    monkeypatch.setattr(ScatteringClassifier, "features", lambda self, x: seen.append(len(x)) or features(self, x))
    kept, weights = fitted(bank)
    assert sum(seen) == bank.rows
    monkeypatch.setattr(steps, "may_be_kept", lambda network, config: False)
    anew, weights_anew = fitted(bank)
    assert sum(seen) > 2 * bank.rows
    assert (kept[-4:].mean() < kept[:4].mean() - 0.05).item(), "nothing was learnt, so nothing was compared"
    assert (kept - anew).abs().max().item() < 2e-3  # features are kept as float16
    for name, value in weights.items():
        torch.testing.assert_close(weights_anew[name], value, atol=5e-3, rtol=0, msg=name)


def test_features_of_a_bank_that_grows_are_those_of_one_that_was_whole(tmp_path):
    bank = AnswerBank(tmp_path / "bank", (3, 8, 8), 3, ["a"])
    network, reader = build_classifier("scattering", 3, (3, 8, 8), seed=1), BankReader(bank, CPU)
    for number, count in enumerate((5, 1, 300)):
        images = np.random.default_rng(number).integers(0, 256, (count, 3, 8, 8)).astype(np.uint8)
        bank.add_batch(number, images, np.zeros(count, np.int64))
        reader.fixed_features(network)
    grown = reader.fixed_features(network)
    assert torch.equal(grown, BankReader(bank, CPU).fixed_features(network))
    with torch.no_grad():
        wanted = network.features(to_pixels(torch.from_numpy(np.array(bank.images))))
    torch.testing.assert_close(grown.float(), wanted, atol=1e-3, rtol=1e-3)


def test_features_that_would_fill_memory_are_not_kept(bank, monkeypatch):
    network = build_classifier("scattering", 3, (1, 8, 8), seed=1)
    monkeypatch.setattr(fixed_features, "_MOST", bank.rows * network.feature_size * 2 - 1)
    assert BankReader(bank, CPU).fixed_features(network) is None


@pytest.mark.parametrize("changed", [{"shift": 1}, {"flip": True}, {"noise": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}])
def test_features_of_views_that_change_are_not_kept(changed):
    network = build_classifier("scattering", 3, (1, 8, 8), seed=1)
    assert may_be_kept(network, student())
    assert not may_be_kept(network, student(**changed))
    assert not may_be_kept(build_classifier("convnet", 3, (1, 8, 8), seed=1), student())
