# SPDX-License-Identifier: Apache-2.0
"""Which answers a round group sees, and how many rounds share a query."""

from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.config import QueriesConfig, RunConfig
from fedcpsc.distillation.round_schedule import OverlapPolicy, RoundSchedule, next_size


@given(st.integers(0, 6), st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_a_group_sees_what_lies_far_enough_back_and_the_final_fit_all(max_outstanding, sizes):
    rounds, schedule = sum(sizes), RoundSchedule(max_outstanding)
    for number, size in enumerate(sizes):
        group = RoundSchedule(max_outstanding, schedule.ends, size).next_group(rounds)
        assert group == range(sum(sizes[:number]), sum(sizes[: number + 1]))
        assert schedule.seen == (0 if number == 0 else sum(sizes[: max(1, number - max_outstanding)]))
        assert schedule.seen - len(schedule.newest) == sum(sizes[: max(0, number - max_outstanding - 1)])
        schedule = schedule.after(group)
    seen = [schedule.seen_by(step, 40) for step in range(40)]
    assert seen == sorted(seen)
    assert seen[20] == schedule.asked == rounds
    assert seen[0] == schedule.seen or max_outstanding > 20


def test_the_last_group_is_cut_to_the_runs_rounds():
    assert RoundSchedule(0, (4,), 4).next_group(6) == range(4, 6)


def size(now=1, **changed):
    usual = {"answer_s": 4.0, "work_s": 1.0, "waiting_goal": 0.05, "images_fit": 10, "rounds": 100}
    return next_size(now, **{**usual, **changed})


def test_groups_grow_step_by_step_until_the_work_covers_the_silos_time():
    assert [size(1), size(2), size(4), size(8)] == [2, 4, 4, 8]


def test_groups_are_bounded_by_the_silos_and_by_the_run():
    assert size(2, images_fit=3) == 3
    assert size(2, rounds=16) == 3
    assert size(1, images_fit=0) == 1


def test_fast_silos_and_a_goal_of_one_change_nothing():
    assert size(answer_s=0.2) == 1
    assert size(answer_s=100.0, waiting_goal=1.0) == 1


def test_blanks_mean_no_overlap_and_are_filled_in_for_a_deployment():
    blank = RunConfig()
    assert OverlapPolicy.of(blank.queries) == OverlapPolicy(0, 1, 1.0)
    assert OverlapPolicy.of(blank.in_deployment().queries) == OverlapPolicy(2, 2, 0.05)
    chosen = RunConfig(queries=QueriesConfig(ahead=0, waiting_goal=1.0))
    assert OverlapPolicy.of(chosen.in_deployment().queries) == OverlapPolicy(0, 2, 1.0)
