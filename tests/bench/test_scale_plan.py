# SPDX-License-Identifier: Apache-2.0
"""The plan for runs too large to make is arithmetic, and its constants can be measured."""

import pytest

from benchmarks.scale_plan import Constants, Size, measure, plan
from fedcpsc.config import RunConfig

ONES = Constants(
    query_overhead=1, answer_bytes=10, journal_bytes=60, timeline_bytes=100, bank_s=0.01, aggregate_s=1e-7, step_s=0.1
)


def test_bytes_and_seconds_by_hand():
    size = Size(silos=3, images=2500, image_bytes=99, classes=10, images_per_query=1000)
    got = plan(size, ONES)
    assert got["answers"] == 7500
    assert got["messages"] == 9  # three queries, the last of 500 images
    assert got["sent_bytes"] == 750_000
    assert got["a_silo_receives_bytes"] == 250_000
    assert got["received_bytes"] == 75_000
    assert got["bank_images_bytes"] == 2500 * (99 + 8 + 40)
    assert got["bank_answers_bytes"] == 300_000
    assert got["journal_bytes"] == 540
    assert got["link_s"] == pytest.approx(825_000 / 20e6)
    assert got["banking_s"] == pytest.approx(0.09)
    assert got["aggregating_s"] == pytest.approx(2 * got["aggregating_once_s"])
    assert got["fit_s"] == pytest.approx(2500 * 0.92 * 0.1)
    assert got["held_in_flight_bytes"] == 300_000


def test_only_what_a_silo_itself_does_is_the_same_for_any_number_of_silos():
    few, many = (plan(Size(silos=silos), ONES) for silos in (10, 1000))
    same = {name for name in few if few[name] == many[name]}
    assert same == {"a_silo_receives_bytes", "a_silo_messages_s", "bank_images_bytes", "fit_s"}


def test_the_constants_are_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure(silos=2, rows=40)
    assert 10 <= found.answer_bytes < 30  # ten classes in 8 bits, and a small message's head
    assert 0 < found.query_overhead < 20
    assert 50 < found.journal_bytes < 100
    assert min(found.bank_s, found.aggregate_s, found.step_s) > 0


def test_the_plan_fits_as_long_as_a_run_of_that_size_would():
    size = Size()
    queries = {"answers_per_silo": size.images, "rounds": size.images // size.images_per_query}
    config = RunConfig.model_validate({"queries": queries})
    assert config.student.committee == size.committee
    assert config.steps_per_round * config.queries.rounds == size.steps_an_image * size.images
    assert config.final_steps == size.final_steps_an_image * size.images
