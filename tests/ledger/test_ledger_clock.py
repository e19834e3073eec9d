# SPDX-License-Identifier: Apache-2.0
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcpsc.gatekeeper.ledger_words import ledger_facts
from fedcpsc.ledger.ledger import Budget, Charge, Ledger, Reserved, Stored

DATA = "clinic north"
HOUR_NS, YEAR_NS = 3600 * 10**9, 365 * 24 * 3600 * 10**9
NOW, BOOT = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Clocks:
    """A machine's clock on the wall, which can be set, and its count of seconds since it was started, which cannot."""

    def __init__(self) -> None:
        self.passed = self.wrong = 0

    def wall(self) -> int:
        return NOW + self.passed + self.wrong

    def boot(self, _: int) -> int:
        return BOOT + self.passed


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    found = Clocks()
    monkeypatch.setattr(time, "time_ns", found.wall)
    monkeypatch.setattr(time, "clock_gettime_ns", found.boot)
    return found


def events(ledger: Ledger) -> list[tuple[str, int]]:
    notes = [json.loads(row["note"]) for row in ledger.clock_events()]
    return [(note["how"], note["seconds"]) for note in notes]


def answered(ledger: Ledger) -> None:
    ledger.reserve("before", "p", Charge(1))
    ledger.store("before", b"reply")


KINDS: dict[str, Callable[[Ledger], object]] = {
    "created": lambda ledger: None,
    "charged": lambda ledger: ledger.reserve("x", "p", Charge(3)),
    "answered": lambda ledger: ledger.store("kept", b"reply"),
    "refused": lambda ledger: ledger.reserve("x", "p", Charge(10**6)),
    "raised": lambda ledger: ledger.raise_budget(answers=200),
    "released": lambda ledger: ledger.release("x", Charge(3, private=True)),
}


@pytest.mark.parametrize("ahead", [8 * HOUR_NS, YEAR_NS], ids=["8 h", "1 year"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "restarted"])
def test_a_clock_ahead_for_one_row_stops_nobody_once_it_is_right(
    tmp_path: Path, clocks: Clocks, kind: str, ahead: int, restarted: bool
) -> None:
    path = tmp_path / "ledger.sqlite"
    clocks.wrong = ahead if kind == "created" else 0
    ledger = Ledger.create(path, DATA, 100)
    if kind != "created":
        ledger.reserve("kept", "p", Charge(5))
        clocks.wrong = ahead
        KINDS[kind](ledger)
    spent, newest = ledger.status().spent, ledger.status().time_ns
    assert newest >= NOW + ahead
    clocks.wrong, clocks.passed = 0, 10**9
    if restarted:
        ledger.close()
        ledger = Ledger.open(path, DATA)
    assert isinstance(ledger.reserve("after", "p", Charge(2)), Reserved)
    ledger.store("after", b"reply")
    assert ledger.reserve("after", "p", Charge(2)) == Stored(b"reply")
    ledger.raise_budget(answers=500, note="goes on")
    assert ledger.verify().spent == Budget(spent.answers + 2, 0)
    assert Ledger.open(path, DATA).status().time_ns == clocks.wall()  # true times again
    assert ("back", -round(ahead / 10**9)) in [(how, round(seconds, -1)) for how, seconds in events(ledger)]


def test_a_forward_jump_within_a_process_is_recorded_and_told(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger.create(tmp_path / "ledger.sqlite", DATA, 100)
    clocks.passed = 30 * 24 * HOUR_NS  # a month of idleness, or of a laptop's sleep, is no jump
    ledger.reserve("a", "p", Charge(1))
    clocks.wrong = 59 * 10**9  # nor is a clock that NTP sets
    ledger.reserve("b", "p", Charge(1))
    assert events(ledger) == []
    clocks.wrong += 8 * HOUR_NS
    with caplog.at_level(logging.WARNING, "fedcpsc.gatekeeper"):
        ledger.reserve("c", "p", Charge(1))
        ledger.reserve("d", "p", Charge(1))
    assert events(ledger) == [("ahead", 8 * 3600)]
    (told,) = [record.__dict__["fedcpsc"]["note"] for record in caplog.records]
    assert "jumped ahead by 28800 s" in told
    assert "set the machine's clock right" in told
    assert ledger.verify().spent.answers == 4
    (shown,) = ledger_facts(ledger)["clock_events"]
    assert "jumped ahead (+28800 s" in shown


def test_a_clock_that_went_back_less_than_a_minute_is_no_event_and_times_do_not_fall(
    tmp_path: Path, clocks: Clocks
) -> None:
    ledger = Ledger.create(tmp_path / "ledger.sqlite", DATA, 100)
    clocks.wrong = -30 * 10**9
    ledger.reserve("a", "p", Charge(1))
    times = [row["time_ns"] for row in ledger.export()]
    assert times == sorted(times)
    assert ledger.verify().events == 2


@pytest.mark.parametrize("begun_then", [False, True])
def test_a_machine_whose_clock_stands_at_1970_goes_on_and_its_owner_is_told(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture, begun_then: bool
) -> None:
    path = tmp_path / "ledger.sqlite"
    if begun_then:
        clocks.wrong = -NOW
    ledger = Ledger.create(path, DATA, 100)
    ledger.close()
    clocks.wrong = -NOW
    with caplog.at_level(logging.WARNING, "fedcpsc.gatekeeper"):
        ledger = Ledger.open(path, DATA)
        answered(ledger)
        answered(ledger)
        ledger.raise_budget(answers=200)
    assert [how for how, _ in events(ledger)] == (["unset", "unset"] if begun_then else ["back"])
    assert any("before this software was made" in record.__dict__["fedcpsc"]["note"] for record in caplog.records)
    assert ledger.verify().spent.answers == 1
    clocks.wrong = 0
    ledger.reserve("right again", "p", Charge(1))
    assert ledger.verify().time_ns == NOW
    assert events(ledger)[-1][0] == "ahead"


def test_time_may_fall_at_a_clock_row_alone(tmp_path: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger.create(tmp_path / "ledger.sqlite", DATA, 100)
    clocks.wrong = -2 * HOUR_NS
    monkeypatch.setattr("fedcpsc.ledger.clock.TOLERANCE_NS", YEAR_NS)
    monkeypatch.setattr("fedcpsc.ledger.writing.max", lambda now, before: now, raising=False)
    ledger.reserve("a", "p", Charge(1))
    with pytest.raises(Exception, match="contradicts the row before it"):
        ledger.verify()
