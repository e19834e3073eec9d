# SPDX-License-Identifier: Apache-2.0
"""The clock as information: when it went back or jumped ahead is found and recorded, and stops nobody.

Within a process the wall clock is compared with the machine's count of seconds since it was started, which
nobody sets. Between processes only a clock that went back can be seen: it is before the newest row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["RELEASED_NS", "TOLERANCE_NS", "Clock", "ClockEvent", "Reading", "iso_time"]

TOLERANCE_NS = 60 * 10**9  # clocks are set by so much every day, e.g. by NTP
RELEASED_NS = 1_735_689_600 * 10**9  # 2025-01-01: no release of this software is older
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # counts on while a machine sleeps


def iso_time(time_ns: int) -> str:
    """A time in nanoseconds since 1970 as ISO 8601 in UTC, microseconds kept."""
    try:
        shown = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    except OverflowError:
        return f"{time_ns} ns after 1970"
    return shown.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class ClockEvent:
    """The clock did something that no clock that goes right does.

    Attributes:
        from_ns: time that was expected, in nanoseconds since 1970.
        to_ns: time that the clock showed.
        how: `back`, `ahead`, or `unset` for a time before this software was released.
    """

    from_ns: int
    to_ns: int
    how: str

    def note(self) -> dict[str, int | str]:
        """What the ledger's row of kind `clock` says."""
        seconds = round((self.to_ns - self.from_ns) / 10**9)
        return {"from_ns": self.from_ns, "to_ns": self.to_ns, "seconds": seconds, "how": self.how}


@dataclass(frozen=True)
class Reading:
    """One look at the clock.

    Attributes:
        wall_ns: time shown, in nanoseconds since 1970.
        boot_ns: nanoseconds since the machine was started, sleep included.
        event: what is wrong with the time shown, if anything.
    """

    wall_ns: int
    boot_ns: int
    event: ClockEvent | None = None


class Clock:
    """The clock of one open ledger."""

    def __init__(self) -> None:
        self._last = _now()
        self._unset_is_known = False

    def look(self, newest_ns: int) -> Reading:
        """The time now, compared with the newest row and against the last reading that was kept.

        Args:
            newest_ns: time of the ledger's newest row, in nanoseconds since 1970.
        """
        now = _now()
        expected = self._last.wall_ns + now.boot_ns - self._last.boot_ns
        if now.wall_ns < newest_ns - TOLERANCE_NS:
            event = ClockEvent(newest_ns, now.wall_ns, "back")
        elif abs(now.wall_ns - expected) > TOLERANCE_NS:
            event = ClockEvent(expected, now.wall_ns, "ahead" if now.wall_ns > expected else "back")
        elif now.wall_ns < RELEASED_NS and not self._unset_is_known:
            event = ClockEvent(newest_ns, now.wall_ns, "unset")
        else:
            return now
        return Reading(now.wall_ns, now.boot_ns, event)

    def keep(self, reading: Reading) -> None:
        """Goes on from a reading whose event, if any, is recorded."""
        self._last = reading
        if reading.event is not None:
            self._unset_is_known = reading.wall_ns < RELEASED_NS


def _now() -> Reading:
    return Reading(time.time_ns(), time.clock_gettime_ns(_SINCE_BOOT))
