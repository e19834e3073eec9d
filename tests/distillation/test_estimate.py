# SPDX-License-Identifier: Apache-2.0
"""How good a student may be, told by how far the silos agree."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.commands.run_view import result_table
from fedcpsc.distillation import estimate
from fedcpsc.distillation.estimate import ERROR, expected_share, steadfastness
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.models.classifier import Classifier
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.report.sections.headline import key_figures
from fedcpsc.runs.evaluation_words import estimate_in_words
from fedcpsc.runs.read import gather

CONFIG = {"silos__count": 3, "queries__answers_per_silo": 240, "evaluation__held_out": False}


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(estimate, "FEWEST", 240)


def unlike(seed):
    """A teacher that sees in each image what no other sees."""

    def answers(images):
        rng = np.random.default_rng([seed, int(images.astype(np.int64).sum()) % 2**31])
        said = rng.dirichlet(np.ones(3) * 0.3, len(images)).astype(np.float32)
        return said / said.sum(1, keepdims=True)

    return answers


def run(folder, silos, *, images=None, **changes):
    config = tiny_config(**CONFIG | changes)
    return distill(config, LocalTransport(silos), folder / "run", evaluation=images)


def test_silos_that_agree_promise_more_than_such_that_do_not(tmp_path):
    alike = run(tmp_path / "alike", [FakeSilo(name) for name in "abc"])["estimate"]
    apart = run(tmp_path / "apart", [FakeSilo(name, teacher=unlike(n)) for n, name in enumerate("abc")])["estimate"]
    assert alike["agreement"] > 0.9
    assert apart["agreement"] < 0.4
    assert 1 >= alike["share"] > apart["share"] + 0.1 >= 0.1
    assert alike["error"] == apart["error"] == ERROR


def test_the_share_rises_with_both_and_stays_a_share():
    for steady in (0.0, 0.5, 1.0):
        shares = [expected_share(agreement, steady) for agreement in np.linspace(0, 1, 11)]
        assert shares == sorted(shares)
        assert all(0 < share < 1 for share in shares)
    assert expected_share(0.5, 0.7) > expected_share(0.5, 0.3)


def test_one_that_goes_by_the_mean_tone_is_not_steadfast_and_one_that_says_the_same_of_all_is():
    class Tone(Classifier):
        def __init__(self, gain):
            super().__init__(4, (3, 16, 16))
            self.gain = torch.nn.Parameter(torch.tensor(gain))

        def forward_with_features(self, x):
            tone = x.mean((1, 2, 3))[:, None]
            return -self.gain * (tone - torch.linspace(-0.6, 0.6, 4)) ** 2, tone

    assert steadfastness(Tone(0.0)) == 1
    assert 0.2 < steadfastness(Tone(1.0)) < 0.7
    assert steadfastness(Tone(1.0)) == steadfastness(Tone(1.0))


@pytest.mark.parametrize(
    ("silos", "changes"),
    [
        ([FakeSilo("a"), FakeSilo("b")], {"silos__count": 2}),
        ([FakeSilo(name) for name in "abc"], {"aggregation__robust": False}),
        ([FakeSilo(name) for name in "abc"], {"queries__answers_per_silo": 239}),
        ([FakeSilo("a"), FakeSilo("b"), FakeSilo("c", noise_sigma=0.1)], {}),
        ([FakeSilo("a"), FakeSilo("b"), FakeSilo("c", forms=(AnswerForm.LABEL,))], {"queries__form": "best"}),
    ],
    ids=["two silos", "not judged", "few images", "noise", "a label"],
)
def test_nothing_is_estimated_of_what_it_was_not_measured_on(tmp_path, silos, changes):
    assert "estimate" not in run(tmp_path, silos, **changes)


def test_the_terminal_and_the_page_tell_it_where_nothing_was_measured(tmp_path):
    result = run(tmp_path, [FakeSilo(name) for name in "abc"])
    words = estimate_in_words(result["estimate"])
    assert "estimated without test images, its accuracy is about" in words
    console = Console(file=io.StringIO(), width=200)
    console.print(result_table(result))
    assert words in " ".join(console.file.getvalue().split())
    shown = next(item for item in key_figures(gather(tmp_path / "run")).items if item.term == "student")
    assert shown.value == "not measured"
    assert words in shown.note


def test_where_it_was_measured_the_terminal_says_no_estimate(tmp_path):
    silos = [FakeSilo(name, teacher=lambda images: brightness_probabilities(images, 3)) for name in "abc"]
    result = run(tmp_path, silos, images=evaluation(), evaluation__held_out=True)
    assert result["estimate"]["share"] > 0.5
    assert "estimated" not in str(result_table(result).caption)
