# SPDX-License-Identifier: Apache-2.0
"""Axes begin where something happens, and labels keep apart."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.chart_layout import spread, x_axis, y_axis


def test_an_axis_begins_at_zero_where_figures_come_near_it():
    axis = y_axis([8.1, 60.0, 97.6], top=101)
    assert (axis.low, axis.high, axis.cut) == (0.0, 101, False)
    assert axis.labels() == ["0", "20", "40", "60", "80", "100"]


def test_it_begins_shortly_below_figures_that_all_lie_far_above_zero():
    axis = y_axis([84.2, 97.6], top=101)
    assert axis.cut
    assert 75 <= axis.low < 84.2
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)


def test_what_must_begin_at_zero_does():
    assert y_axis([0.98, 1.0], top=1.05, from_zero=True).low == 0


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [0.0, 0.0], [1e-9], [1e12, 1e12 + 1], []])
def test_any_figures_have_an_axis(values):
    axis = y_axis(values)
    assert axis.high > axis.low
    assert all(0 <= axis.share(value) <= 100.0001 for value in values)
    assert len(axis.labels()) == len(axis.ticks)


def test_a_figure_that_rounding_puts_below_a_tick_has_one():
    axis = y_axis([100 * 0.57, 60.5, 100 * 0.606])  # 56.99999999999999
    assert axis.low < 57


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_everything_lies_within_the_axis_and_no_two_ticks_read_the_same(values):
    axis = y_axis(values)
    assert all(-1e-6 <= axis.share(value) <= 100 + 1e-6 for value in values)
    labels = axis.labels()
    assert len(set(labels)) == len(labels)


def test_rounds_are_whole_numbers_from_the_first_to_the_last():
    axis = x_axis([1.0, 2.0, 20.0], from_zero=False)
    assert (axis.low, axis.high) == (1.0, 20.0)
    assert axis.labels() == ["1", "5", "10", "15", "20"]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_keep_their_distance_and_their_order(wanted):
    places = spread(wanted, 16.0, 300.0)
    gap = min(16.0, 300.0 / max(1, len(wanted) - 1))
    ordered = sorted(zip(wanted, places, strict=True))
    assert all(b[1] - a[1] >= gap - 1e-6 or a[0] == b[0] for a, b in pairwise(ordered))
    assert min((b - a for a, b in pairwise(sorted(places))), default=gap) >= gap - 1e-6


def test_labels_that_have_room_stay_where_they_are_and_those_that_have_none_move_as_little_as_can_be():
    assert spread([0.0, 100.0], 16.0, 300.0) == [0.0, 100.0]
    assert spread([50.0, 50.0], 16.0, 300.0) == [42.0, 58.0]
