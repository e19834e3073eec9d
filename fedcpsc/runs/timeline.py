# SPDX-License-Identifier: Apache-2.0
"""The time line of a run: what the server did when, where it only waited, and every query at every silo.

`timeline.jsonl` holds one line for each span of time, in seconds since the run began, earlier attempts counted in:

    {"what": "fit", "from": 12.301, "to": 13.122, "round": 3}
    {"what": "query", "from": 11.02, "to": 16.57, "round": 3, "silo": "silo-0", "images": 250, "outcome": "answer"}

A line is handed to the operating system when its span ends: a killed process loses at most the span it was in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["QUERY", "WAITING", "Span", "Timeline", "read_timeline", "waiting_shares"]

WAITING = "waiting"
QUERY = "query"


@dataclass(frozen=True)
class Span:
    """One span of time: a line of the file.

    Attributes:
        what: kind of span: `waiting`, `query`, or the server's work, one of pretraining, synthesis, fit, targets,
            checkpoint, evaluation, final.
        begin, end: seconds since the run began, begin <= end.
        round: number of the last round it belongs to, from 1, and 0 before the first; of `waiting` the last waited for.
        silo, images, outcome: silo, number of images and outcome of a query; the outcome is `answer`, `late answer`
            (its round was no longer waited for), `lost` or `refused (<code>)`.
    """

    what: str
    begin: float
    end: float
    round: int
    silo: str = ""
    images: int = 0
    outcome: str = ""

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


class Timeline:
    """Writes a run's time line, and is its clock.

    Args:
        path: path of the file.
        resumed: whether to go on with what it holds; else it begins anew.
        clock: source of monotonic seconds.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, path: Path, *, resumed: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        lines = read_timeline(path) if resumed else ()
        if resumed and path.exists():  # a last line cut short by a crash
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        else:
            path.write_text("")
        self._waited = sum(line.seconds for line in lines if line.what == WAITING)
        self._zero = clock() - max((line.end for line in lines), default=0.0)

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._zero

    @property
    def waited_s(self) -> float:
        """Of these, seconds in which the server only waited."""
        return self._waited

    def at_least(self, seconds: float) -> None:
        """Sets the clock forward to `seconds`, where an earlier attempt lasted longer than the file knows."""
        self._zero = min(self._zero, self._clock() - seconds)

    @contextmanager
    def span(self, what: str, round_number: int) -> Iterator[None]:
        """The block is one span; nothing is written where it raises."""
        begin = self.now
        yield
        self._write(Span(what, begin, self.now, round_number))

    def read(self) -> tuple[Span, ...]:
        """All spans so far."""
        return read_timeline(self._path)

    def query(self, silo: str, round_number: int, images: int, asked_s: float, outcome: str) -> None:
        """A query that ends now; `asked_s` is the `now` at which it was sent."""
        self._write(Span(QUERY, asked_s, self.now, round_number, silo, images, outcome))

    def _write(self, span: Span) -> None:
        if span.what == WAITING:
            self._waited += span.seconds
        line: dict[str, str | float] = {"what": span.what, "from": round(span.begin, 3), "to": round(span.end, 3)}
        line["round"] = span.round
        if span.what == QUERY:
            line |= {"silo": span.silo, "images": span.images, "outcome": span.outcome}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(format_json(line, self._path) + "\n")


def read_timeline(path: Path) -> tuple[Span, ...]:
    """The spans in the order they ended; none where there is no file. A line still being written is left out.

    Raises:
        RunError: a line is damaged.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        remedy = "give yourself the right to read it"
        raise RunError(explain("timeline", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    spans = []
    for number, text in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = parse_mapping(text)
            begin, end = float(line["from"]), float(line["to"])
            of_query = str(line.get("silo", "")), int(line.get("images", 0)), str(line.get("outcome", ""))
            spans.append(Span(str(line["what"]), begin, end, int(line["round"]), *of_query))
        except (ValueError, TypeError, KeyError) as error:
            remedy = "delete that line, or restore the file"
            raise RunError(explain("timeline", f"{path}, line {number}", f"is damaged ({error!r})", remedy)) from error
    return tuple(spans)


def waiting_shares(spans: tuple[Span, ...], total_s: float) -> tuple[float, float]:
    """The share of `total_s` that was waiting, and the same after the first round, whose answers all else needs."""
    waits = [span for span in spans if span.what == WAITING]
    first_end = waits[0].end if waits else 0.0
    later = sum(span.seconds for span in waits[1:])
    return sum(span.seconds for span in waits) / max(total_s, 1e-9), later / max(total_s - first_end, 1e-9)
