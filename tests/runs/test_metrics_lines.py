# SPDX-License-Identifier: Apache-2.0
"""metrics.jsonl: lines of earlier versions are given in the form of this one, also beside lines of this one."""

import json

import pytest

from fedcpsc.errors import RunError
from fedcpsc.runs.follow import MetricsTail
from fedcpsc.runs.metrics import read_metrics, upgrade_line

OLDEST = (
    '{"phase": "round", "round": 1, "rounds": 4, "bank": 100, "answers_used": 100, "answers_budget": 400, '
    '"entropy": 0.9, "alarm": false, "seconds": 1.0, "waiting_s": 0.0, "share_done": 0.2, "seconds_left": 4.0, '
    '"silos": {"silo-0": {"answers": 100, "left": 900}}}'
)
OLD = (
    '{"phase": "round", "round": 2, "rounds": 4, "bank": 200, "answers_used": 200, "answers_budget": 400, '
    '"entropy": 0.9, "alarm": false, "seconds": 2.0, "waiting_s": 0.0, "share_done": 0.4, "seconds_left": 3.0, '
    '"silos": {"silo-0": {"answers": 200, "left": 800, "gone": ""}, '
    '"silo-1": {"answers": 50, "left": 0, "gone": "its budget is spent"}}}'
)
NEW = (
    '{"phase": "round", "round": 3, "rounds": 4, "bank": 300, "answers_used": 300, "answers_budget": 400, '
    '"entropy": 0.9, "alarm": false, "seconds": 3.0, "waiting_s": 0.0, "share_done": 0.6, "seconds_left": 2.0, '
    '"silos": {"silo-0": {"answers": 300, "answers_left": 700, "stopped": null}, '
    '"silo-1": {"answers": 50, "answers_left": 0, "stopped": "its budget is spent"}}}'
)
SILOS = [
    {"silo-0": {"answers": 100, "answers_left": 900}},
    {
        "silo-0": {"answers": 200, "answers_left": 800, "stopped": None},
        "silo-1": {"answers": 50, "answers_left": 0, "stopped": "its budget is spent"},
    },
    {
        "silo-0": {"answers": 300, "answers_left": 700, "stopped": None},
        "silo-1": {"answers": 50, "answers_left": 0, "stopped": "its budget is spent"},
    },
]


def without_silos(lines):
    return [{key: value for key, value in line.items() if key != "silos"} for line in lines]


def test_a_file_with_lines_of_both_forms_is_read_in_the_form_of_this_version(tmp_path):
    text = f"{OLDEST}\n{OLD}\n{NEW}\n"
    (tmp_path / "metrics.jsonl").write_text(text)
    found = read_metrics(tmp_path)
    assert [line["silos"] for line in found] == SILOS
    assert without_silos(found) == without_silos(map(json.loads, (OLDEST, OLD, NEW)))
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_round_that_a_newer_version_wrote_again_counts_as_it_says(tmp_path):
    again = json.loads(NEW) | {"round": 2, "share_done": 0.4}
    (tmp_path / "metrics.jsonl").write_text(f"{OLD}\n{json.dumps(again)}\n")
    assert list(read_metrics(tmp_path)) == [again]


def test_lines_that_are_followed_while_they_are_written_are_given_in_the_same_form(tmp_path):
    tail = MetricsTail(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f"{OLDEST}\n{OLD}\n{NEW}\n")
    assert [line["silos"] for line in tail.read()] == SILOS


def test_the_upgrade_changes_nothing_that_it_was_given():
    old = json.loads(OLD)
    assert upgrade_line(old)["silos"] == SILOS[1]
    assert old == json.loads(OLD)
    assert upgrade_line({"phase": "final"}) == {"phase": "final"}


@pytest.mark.parametrize("silos", [3, {"silo-0": None}, {"silo-0": {"answers": 1, "left": "many"}}])
def test_damage_in_an_older_line_is_damage_after_the_upgrade(tmp_path, silos):
    (tmp_path / "metrics.jsonl").write_text(f"{OLDEST}\n{json.dumps(json.loads(OLD) | {'silos': silos})}\n")
    with pytest.raises(RunError, match="line 2: .*is damaged|line 2.*is damaged"):
        read_metrics(tmp_path)
