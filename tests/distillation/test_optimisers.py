# SPDX-License-Identifier: Apache-2.0
"""The optimiser and the schedule that the configuration names, in the steps that the fit does."""

import math

import numpy as np
import pytest
import torch
from support.fakes import brightness_probabilities
from support.tiny_runs import tiny_config
from torch import nn

from fedcpsc.distillation.optimisers import learning_rate, make_optimiser, optimiser_in_words
from fedcpsc.distillation.steps import BankReader, fit, make_committee, student_loss
from fedcpsc.errors import ConfigError
from fedcpsc.runs.answer_bank import AnswerBank

CPU = torch.device("cpu")


def student(**changes):
    return tiny_config(**{f"student__{name}": value for name, value in changes.items()}).student


def rates(total=8, **changes):
    return [learning_rate(student(learning_rate=1.0, **changes), step, total) for step in range(total)]


def test_the_cosine_falls_to_zero_constant_stays_and_step_falls_twice():
    assert rates() == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])
    assert rates(schedule="constant") == [1.0] * 8
    assert rates(schedule="step") == [1.0] * 4 + [0.1] * 2 + [0.01] * 2


def test_a_warm_up_rises_evenly_and_the_schedule_has_the_rest():
    assert rates(schedule="constant", warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(warmup_steps=4)[4:] == rates(total=4)
    with pytest.raises(ConfigError, match=r"student\.warmup_steps=8: must be less than the 8 steps of the final fit"):
        student(warmup_steps=8)


@pytest.mark.parametrize(
    ("changes", "kind", "options"),
    [
        ({}, torch.optim.Adam, {"lr": 2e-3, "weight_decay": 0.0, "betas": (0.9, 0.999)}),
        ({"optimiser": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, {"lr": 2e-3, "weight_decay": 0.1}),
        (
            {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
            torch.optim.SGD,
            {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        ),
    ],
)
def test_each_optimiser_is_torchs_with_what_is_configured(changes, kind, options):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    made = make_optimiser(student(**changes), network)
    assert type(made) is kind
    (group,) = made.param_groups
    assert {name: group[name] for name in options} == options
    assert len(group["params"]) == 2, "what does not learn has no state"


@pytest.mark.parametrize("changes", [{}, {"optimiser": "adamw"}, {"optimiser": "sgd", "momentum": 0.0}])
def test_nesterov_needs_sgd_with_a_momentum(changes):
    with pytest.raises(ConfigError, match="nesterov=True: is for sgd with a momentum > 0"):
        student(nesterov=True, **changes)


def test_they_are_told_in_words():
    assert optimiser_in_words(student()) == "adam, learning rate 0.002, cosine schedule"
    told = optimiser_in_words(
        student(optimiser="sgd", nesterov=True, learning_rate=0.1, warmup_steps=5, schedule="step", mixup=0.2)
    )
    assert told == "sgd, Nesterov momentum 0.9, learning rate 0.1, step schedule after 5 steps of warm-up, mixup 0.2"


@pytest.fixture
def bank(tmp_path):
    bank = AnswerBank(tmp_path / "bank", (1, 8, 8), 3, ["a"])
    images = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8)).astype(np.uint8)
    bank.set_targets(bank.add_batch(0, images, np.zeros(80, np.int64)), brightness_probabilities(images, 3))
    return bank


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "sgd", "learning_rate": 0.05, "mixup": 0.4},
        {"optimiser": "adamw", "cutmix": 1.0, "contrastive_weight": 0.1},
        {"mixup": 0.2, "cutmix": 0.2, "precision": "bfloat16"},
    ],
)
def test_a_fit_repeats_and_its_loss_falls(bank, changes):
    losses = []
    for _ in range(2):
        (member, *_) = make_committee(student(width=8, **changes), 3, (1, 8, 8), 1, CPU)
        none = np.zeros(0, np.int64)
        losses.append(fit(member, student(**changes), BankReader(bank, CPU), np.arange(80), none, 60, 5))
    assert torch.equal(*losses)
    assert losses[0][-20:].mean() < losses[0][:20].mean() - 0.02


def test_the_rates_of_the_final_fit_reach_the_optimiser(bank):
    settings = student(schedule="step", learning_rate=1e-2)
    (member, *_) = make_committee(settings, 3, (1, 8, 8), 1, CPU)
    for done, rate in ((0, 1e-2), (4, 1e-3), (6, 1e-4)):
        fit(member, settings, BankReader(bank, CPU), np.arange(80), np.zeros(0, np.int64), 2, 5, cosine_from=(done, 8))
        assert member.optimiser.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_contrast_looks_at_views_that_are_not_mixed():
    from fedcpsc.data.mixing import Blend

    seen = []

    def passes(views):
        seen.extend(views)
        return [(torch.zeros(len(view), 3), view.flatten(1)) for view in views]

    pixels, targets = torch.rand(4, 1, 8, 8), torch.eye(3)[[0, 1, 2, 0]]
    blend = Blend(torch.tensor([1, 2, 3, 0]), 0.5)
    settings = student(shift=0, contrastive_weight=1.0)
    student_loss(passes, settings, pixels, targets, torch.Generator().manual_seed(1), blend)
    mixed, one, other = seen
    torch.testing.assert_close(mixed, (pixels + pixels[blend.order]) / 2)
    assert torch.equal(one, pixels)
    assert torch.equal(other, pixels)
