# SPDX-License-Identifier: Apache-2.0
"""A run's health is told from its folder: as it goes, as it ends, and where it stays away."""

import json
import os

import pytest

from fedcpsc.commands.status_words import exit_code, in_words
from fedcpsc.errors import ConfigError, FederationError, RunError
from fedcpsc.runs.failure import note_failure
from fedcpsc.runs.health import read_health

NOW = 2_000_000_000.0


def aged(run, **seconds):
    """Every file of the run was written long ago, but for those named, without their suffix."""
    for path in run.rglob("*"):
        moment = NOW - seconds.get(path.name.partition(".")[0], 50_000)
        os.utime(path, (moment, moment))


@pytest.fixture
def going(run):
    """After 12 of 30 rounds, the last line 20 s old."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{**line, "seconds": 10.0 * line["round"], "waiting_s": 3.0} for line in lines[:12]]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    (run / "result.json").unlink()
    aged(run, metrics=20, journal=5, state=21)
    return run


def test_a_finished_run(run):
    aged(run)
    found = read_health(run, now=NOW)
    assert (found.name, found.state, found.phase, found.round, found.rounds) == ("thirty", "finished", "final", 30, 30)
    assert found.share_done == 1.0
    assert [(silo.answers, silo.stopped) for silo in found.silos][2:4] == [(900, None), (390, "its budget is spent")]
    assert found.alarms == ("silo-3 is no longer asked: its budget is spent",)
    assert found.student_accuracy is not None


def test_a_run_that_goes_on(going):
    found = read_health(going, now=NOW)
    assert (found.state, found.phase, found.round) == ("running", "round", 12)
    assert (found.silent_s, found.line_age_s, found.checkpoint_age_s) == (5.0, 20.0, 21.0)
    assert found.waiting_share == 3.0 / 120.0
    assert found.stalled_after_s == pytest.approx(60.2)  # a deadline of 0.2 s
    assert [silo.answers_left for silo in found.silos] == [4640, 5640, 6640, 40, 8640]
    # of the bank, which is newer than the last line
    assert [silo.answers for silo in found.silos] == [900, 900, 900, 390, 900]


@pytest.mark.parametrize(
    ("silent", "given", "state"), [(59, None, "running"), (62, None, "stalled"), (62, 70, "running")]
)
def test_silence_for_longer_than_a_round_may_last_is_a_stall(going, silent, given, state):
    aged(going, metrics=silent)
    assert read_health(going, given, now=NOW).state == state


def test_a_run_with_slow_rounds_may_be_silent_for_longer(going):
    lines = [json.loads(line) for line in (going / "metrics.jsonl").read_text().splitlines()]
    slow = [{**line, "seconds": 100.0 * line["round"]} for line in lines]
    (going / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in slow))
    aged(going, metrics=299)
    assert read_health(going, now=NOW).state == "running"
    aged(going, metrics=301)
    assert read_health(going, now=NOW).state == "stalled"


def test_while_it_goes_on_it_says_who_is_gone_and_why_and_raises_the_alarm(going):
    lines = [json.loads(line) for line in (going / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"alarm": True, "entropy": 0.25}
    lines[-1]["silos"]["silo-1"]["stopped"] = "no answer within 600 s"
    (going / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_health(going, now=NOW).alarms
    assert "class entropy 0.25" in first
    assert second == "silo-1 is no longer asked: no answer within 600 s"


def test_a_line_of_an_earlier_version_says_nothing_of_who_is_gone(going):
    lines = [json.loads(line) for line in (going / "metrics.jsonl").read_text().splitlines()]
    for silo in lines[-1]["silos"].values():
        del silo["stopped"]
    (going / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_health(going, now=NOW).alarms == ()


def test_a_failed_run_says_of_what(going):
    note_failure(going, FederationError("the silos went home"))
    found = read_health(going, now=NOW)
    assert (found.state, found.error) == ("failed", "FederationError: the silos went home")


def test_before_the_silos_have_joined_there_are_only_logs(tmp_path):
    with pytest.raises(ConfigError, match="holds no run.*runs/digits"):
        read_health(tmp_path)
    (tmp_path / "flower.log").write_text("")
    aged(tmp_path, flower=30)
    found = read_health(tmp_path, now=NOW)
    assert (found.state, found.silent_s, found.phase, found.silos) == ("starting", 30.0, None, ())
    aged(tmp_path, flower=601)
    assert read_health(tmp_path, now=NOW).state == "stalled"
    note_failure(tmp_path, FederationError("nobody came"))
    assert read_health(tmp_path, now=NOW).error == "FederationError: nobody came"


def test_a_damaged_run_is_an_error(going):
    (going / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(RunError, match="line 1"):
        read_health(going)


def test_the_words_of_a_run_that_goes_on(going):
    text = "\n".join(in_words(read_health(going, now=NOW)))
    for part in (
        "thirty: running, round 12/30",
        "last sign of life 5 s ago; stalled after 1 min 0 s",
        "last line of metrics 20 s ago; last checkpoint 21 s ago",
        "waited for answers 2.5% of 2 min 0 s",
        "silo-0: 900 of 900 answers; 4,640 left of its budget",
    ):
        assert part in text


def test_every_state_has_an_exit_code_and_a_stall_or_a_failure_says_how_to_go_on(going):
    aged(going)
    stalled = read_health(going, now=NOW)
    note_failure(going, FederationError("x"))
    failed = read_health(going, now=NOW)
    assert [exit_code(found) for found in (stalled, failed)] == [3, 1]
    for found in (stalled, failed):
        assert "--resume" in list(in_words(found))[-1]


def test_a_later_attempt_at_a_finished_run_that_fails_is_told_and_exits_with_1(run):
    note_failure(run, RunError("holds a run already"))
    aged(run, error=10)
    found = read_health(run, now=NOW)
    assert (found.state, found.error, exit_code(found)) == ("finished", "RunError: holds a run already", 1)
    assert "error of a later attempt: RunError: holds a run already" in list(in_words(found))


def test_what_an_attempt_before_the_end_failed_of_is_past(run):
    note_failure(run, RunError("the disk was full"))
    aged(run, result=10)
    found = read_health(run, now=NOW)
    assert (found.state, found.error, exit_code(found)) == ("finished", None, 0)


def test_a_finished_run_tells_its_seconds_as_its_result_does_and_what_silos_say_of_the_student(run):
    result = json.loads((run / "result.json").read_text())
    result["seconds"] |= {"total": 77.0, "waiting_share": 0.25}
    nobody = {"reason": "no silo offers it", "silos": [], "pooled": None}
    (run / "result.json").write_text(json.dumps({**result, "federated_evaluation": nobody}))
    text = "\n".join(in_words(read_health(run, now=NOW)))
    assert "waited for answers 25.0% of 1 min 17 s" in text
    assert "evaluated by the silos: No silo has evaluated the student: no silo offers it." in text
