# SPDX-License-Identifier: Apache-2.0
"""The time line's file: whole after a crash, one clock over all attempts."""

import pytest

from fedcpsc.errors import RunError
from fedcpsc.runs.timeline import Span, Timeline, read_timeline, waiting_shares


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "timeline.jsonl"


def record(path, clock, *, resumed=False):
    line = Timeline(path, resumed=resumed, clock=clock)
    with line.span("fit", 1):
        clock.now += 2
    with line.span("waiting", 1):
        clock.now += 3
    line.query("a", 1, 10, line.now - 4, "answer")
    return line


def test_what_is_written_is_read(path):
    line = record(path, Clock())
    assert (line.now, line.waited_s) == (5.0, 3.0)
    assert read_timeline(path) == (
        Span("fit", 0, 2, 1),
        Span("waiting", 2, 5, 1),
        Span("query", 1, 5, 1, "a", 10, "answer"),
    )


def test_the_clock_goes_on_where_the_last_attempt_ended(path):
    record(path, Clock())
    with path.open("a") as file:
        file.write('{"what": "fi')  # cut short
    line = record(path, Clock(), resumed=True)
    assert (line.now, line.waited_s) == (10.0, 6.0)
    assert [s.begin for s in read_timeline(path)] == [0, 2, 1, 5, 7, 6]


def test_a_new_run_begins_a_new_file(path):
    record(path, Clock())
    assert record(path, Clock()).now == 5.0
    assert len(read_timeline(path)) == 3


def test_a_checkpoint_may_know_of_more_time_than_the_file(path):
    line = Timeline(path, resumed=True, clock=Clock())
    line.at_least(7.5)
    line.at_least(3.0)
    assert line.now == 7.5


def test_a_stretch_that_fails_is_not_on_record(path):
    line = Timeline(path, resumed=False, clock=Clock())
    with pytest.raises(KeyError), line.span("fit", 1):
        raise KeyError
    assert read_timeline(path) == ()


def test_a_damaged_line_is_named(path):
    path.write_text('{"what": "fit", "from": 0, "to": 1, "round": 1}\n{"what": 1}\n')
    with pytest.raises(RunError, match=r"timeline\.jsonl, line 2.*is damaged"):
        read_timeline(path)


def test_the_share_of_waiting_after_the_first_round_leaves_its_waiting_out():
    spans = tuple(Span("waiting", begin, begin + 4, 1) for begin in (6, 20))
    assert waiting_shares(spans, 50.0) == (8 / 50, 4 / 40)
    assert waiting_shares((), 0.0) == (0.0, 0.0)
