# SPDX-License-Identifier: Apache-2.0
"""How light query images are to be is found in the answers, whatever was said of the domain."""

import numpy as np
import pytest
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.tones import find_tones, first_tones, information, tones_of_round
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.priors.tones import Tones
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.round_plan import RoundPlan

DARK = -0.7


def of_a_dark_domain(images, classes=3):
    """Sure answers of all classes to dark images; the lighter the others, the surer they are the last class."""
    means = images.reshape(len(images), -1).mean(1) / 127.5 - 1
    known = np.exp(-((means - DARK) ** 2) / (2 * 0.2**2))
    own = images.reshape(len(images), -1).astype(np.int64).sum(1) % classes
    answers = 0.02 + known[:, None] * np.eye(classes)[own] + (1 - known[:, None]) * np.eye(classes)[-1]
    return (answers / answers.sum(1, keepdims=True)).astype(np.float32)


def lightness(rng, count, low=-0.95, high=0.95):
    """Images of any lightness, uint8 [count, 1, 8, 8]."""
    means = rng.uniform(low, high, (count, 1, 1, 1))
    return np.clip((means + rng.normal(0, 0.1, (count, 1, 8, 8)) + 1) * 127.5, 0, 255).astype(np.uint8)


def banked(folder, images, settings):
    bank = AnswerBank(folder, (1, 8, 8), 3, ["silo-1"])
    batch = bank.add_batch(0, images, np.full(len(images), -1, np.int64))
    answers = of_a_dark_domain(images)
    bank.add_answers(batch.query_id, "silo-1", answers)
    bank.set_targets(batch, answers)
    return RoundPlan(settings), bank


def test_the_answers_tell_most_about_images_of_the_domains_lightness():
    images = lightness(np.random.default_rng(0), 2000)
    told = information(images.reshape(len(images), -1).mean(1) / 127.5 - 1, of_a_dark_domain(images))
    assert np.linspace(-0.9, 0.9, 19)[told.argmax()] == pytest.approx(DARK, abs=0.11)
    assert told.max() > 0.55 * np.log(3)
    assert told[-1] < 0.05


def test_a_lightness_of_which_there_are_too_few_images_is_not_known():
    images = lightness(np.random.default_rng(0), 400, high=0.0)
    told = information(images.reshape(len(images), -1).mean(1) / 127.5 - 1, of_a_dark_domain(images))
    assert np.isfinite(told[:9]).all()
    assert np.isnan(told[-4:]).all()


@pytest.mark.parametrize("given", [None, [0.6, 0.5]])
def test_what_is_found_stands_in_for_what_nobody_knew_and_for_a_wrong_constant(tmp_path, given):
    settings = tiny_config(synthesis__moments=given, queries__answers_per_silo=2000)
    plan, bank = banked(tmp_path, lightness(np.random.default_rng(1), 600), settings)
    found = find_tones(plan, bank, 1)
    assert found.mean == pytest.approx(DARK, abs=0.12)
    assert found.spread < 0.35
    assert found.anywhere == 0
    assert tones_of_round(plan, 2, find_tones(plan, bank, 1)) == found


def test_a_constant_that_the_answers_do_not_speak_against_stays_to_the_last_digit(tmp_path):
    settings = tiny_config(synthesis__moments=[-0.66, 0.5], queries__answers_per_silo=2000)
    plan, bank = banked(tmp_path, lightness(np.random.default_rng(1), 600), settings)
    assert find_tones(plan, bank, 1) == Tones(-0.66)


def test_until_there_are_answers_any_lightness_is_asked_about_or_a_quarter_where_it_was_given(tmp_path):
    unknown, given = tiny_config(synthesis__moments=None), tiny_config()
    bank = AnswerBank(tmp_path, (1, 8, 8), 3, ["silo-1"])
    assert tones_of_round(RoundPlan(unknown), 0, find_tones(RoundPlan(unknown), bank, 0)) == Tones(0.0, anywhere=1.0)
    assert tones_of_round(RoundPlan(given), 0, find_tones(RoundPlan(given), bank, 0)) == Tones(0.0, anywhere=0.25)
    assert tones_of_round(RoundPlan(given), 3, find_tones(RoundPlan(given), bank, 0)) == first_tones(given.synthesis)


@pytest.mark.parametrize("given", [None, [0.3, 0.5]])
def test_who_wants_none_of_it_gets_what_was_said(tmp_path, given):
    settings = tiny_config(synthesis__moments=given, synthesis__find_tones=False, queries__answers_per_silo=2000)
    plan, bank = banked(tmp_path, lightness(np.random.default_rng(1), 600), settings)
    assert find_tones(plan, bank, 1) is None
    assert tones_of_round(plan, 2, find_tones(plan, bank, 1)) == (None if given is None else Tones(0.3))


def test_a_run_in_a_dark_domain_that_nobody_described_asks_about_dark_images(tmp_path):
    silo = FakeSilo("silo-1", teacher=of_a_dark_domain)
    settings = tiny_config(
        silos__count=1, synthesis__moments=None, synthesis__prior_share=1.0, synthesis__candidates=1,
        queries__answers_per_silo=1600, queries__rounds=8, queries__deadline_s=60.0,
    )  # fmt: skip
    told = []
    result = distill(settings, LocalTransport([silo]), tmp_path, tell=told.append)
    means = np.concatenate([query.images for query in silo.queries]).reshape(1600, -1).mean(1) / 127.5 - 1
    assert np.std(means[:200]) > 0.4
    assert np.mean(means[-200:]) == pytest.approx(DARK, abs=0.15)
    assert np.std(means[-200:]) < 0.35
    assert result["tones"]["mean"] == pytest.approx(DARK, abs=0.12)
    assert len([line for line in told if "the answers tell most of images whose mean is about -0." in line]) == 1
