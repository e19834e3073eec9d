# SPDX-License-Identifier: Apache-2.0
import json

from fedcpsc.runs.follow import MetricsTail, following


def test_only_whole_new_lines_are_read_each_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(tmp_path)
    assert tail.read() == []
    path.write_text('{"round": 1}\n{"rou')
    assert tail.read() == [{"round": 1}]
    assert tail.read() == []
    with path.open("a") as file:
        file.write('nd": 2}\n{"round": 3}\n')
    assert tail.read() == [{"round": 2}, {"round": 3}]


def test_what_an_earlier_attempt_wrote_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 1}\n')
    tail = MetricsTail(tmp_path)
    with path.open("a") as file:
        file.write('{"round": 2}\n')
    assert tail.read() == [{"round": 2}]


def test_a_file_begun_anew_is_read_from_its_start(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 1}\n{"round": 2}\n')
    tail = MetricsTail(tmp_path)
    path.write_text('{"round": 1}\n')
    assert tail.read() == [{"round": 1}]


def test_following_tells_all_lines_also_the_last(tmp_path):
    path = tmp_path / "metrics.jsonl"
    seen = []
    with following(tmp_path, seen.append, every_s=0.01), path.open("a") as file:
        for number in range(50):
            file.write(json.dumps({"round": number}) + "\n")
            file.flush()
    assert [line["round"] for line in seen] == list(range(50))


def test_following_tells_the_lines_of_a_run_that_failed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    seen = []
    try:
        with following(tmp_path, seen.append, every_s=60):
            path.write_text('{"round": 1}\n')
            raise RuntimeError
    except RuntimeError:
        assert seen == [{"round": 1}]
