# SPDX-License-Identifier: Apache-2.0
"""Logs of every process of this package: constant sentences with named fields, as lines for people or as JSON.

A record may say who, which and how many (`FIELDS`), never what: no image, no answer, no text from outside. Both forms
print the sentence and the fields in that list, and nothing else a caller attached. Of an exception they print its type
and where it happened, not what it says, since a foreign message may quote data.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from fedcpsc.errors import ConfigError, explain
from fedcpsc.printable import printable

__all__ = [
    "FIELDS",
    "LOG_VARIABLE",
    "Form",
    "JsonLines",
    "TextLines",
    "configure",
    "configure_quietly",
    "fields",
    "form_of",
]

Form: TypeAlias = Literal["text", "json"]

LOG_VARIABLE = "FEDCPSC_LOG"
FIELDS = (
    "run",
    "round",
    "silo",
    "query_id",
    "code",
    "images",
    "left",
    "bank",
    "entropy",
    "waiting_s",
    "seconds",
    "note",
    "where",
    "left_out",
)
_MINUTE_S = 60.0

LogFields: TypeAlias = dict[str, Mapping[str, object]]
"""What a logging call takes as `extra`: values by the names in `FIELDS`, under one key of this project's own."""


def fields(**values: object) -> LogFields:
    """What to give a logging call as `extra`.

    Args:
        values: named as in `FIELDS`; `note` is text of this process's own making, such as a limit, `where` the frames
            of an exception.

    Raises:
        ValueError: for any other name.
    """
    unknown = set(values) - set(FIELDS)
    if unknown:
        raise ValueError(explain("fields", sorted(unknown), f"must be of {FIELDS}", "log ids and counts only"))
    return {"fedcpsc": values}


def form_of(given: str | None = None) -> Form | None:
    """The form asked for by `given`, else by $FEDCPSC_LOG; None where neither says.

    Raises:
        ConfigError: for any other word.
    """
    word = given or os.environ.get(LOG_VARIABLE) or None
    if word is None:
        return None
    for form in get_args(Form):
        if word == form:
            return form  # type: ignore[no-any-return]
    raise ConfigError(explain(LOG_VARIABLE, word, "must be text or json", "leave it out for text"))


def configure(form: Form | None, *, level: int = logging.INFO, alike_a_minute: int | None = None) -> None:
    """Sends the records of this package, and of the web server under it, to stderr; calling again replaces that.

    Args:
        form: None is text.
        level: the least that is written.
        alike_a_minute: most lines of one sentence in a minute; None writes all.
    """
    handler = _Stderr()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    if alike_a_minute is not None:
        handler.addFilter(_NotTooMany(alike_a_minute))
    for name, least in (("fedcpsc", level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        for old in [one for one in logger.handlers if isinstance(one, _Stderr)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(least)


def configure_quietly(given: str | None = None) -> None:
    """For a process that nobody asked for its log: warnings only, unless `form_of(given)` names a form.

    Raises:
        ConfigError: as `form_of`; warnings are written all the same.
    """
    configure(None, level=logging.WARNING)
    if form := form_of(given):
        configure(form)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, and the fields that were given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(line | {"message": record.getMessage(), **_fields(record), **_where(record)})


class TextLines(logging.Formatter):
    """`time LEVEL message name=value ...`, control characters escaped: nobody else can begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; with the frames of an exception below it."""
        given = {**_fields(record), **_where(record)}
        below = [str(given.pop("where"))] if "where" in given else []
        shown = [f"{name}={value}" for name, value in given.items()]
        return "\n".join([printable(" ".join([_time(record), record.levelname, record.getMessage(), *shown])), *below])


class _Stderr(logging.Handler):
    """To what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _NotTooMany(logging.Filter):
    """So many lines alike a minute: whoever may send requests must not be able to fill the owner's disk.

    Alike are lines of one logger and one sentence. How many were left out, of all sentences, stands in the first line
    after that minute.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._begun = 0.0
        self._seen: dict[tuple[str, str], int] = {}
        self._counting = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        key = (record.name, str(record.msg))
        left_out = 0
        with self._counting:
            if now - self._begun > _MINUTE_S:
                left_out = sum(max(0, count - self._most) for count in self._seen.values())
                self._begun, self._seen = now, {}
            self._seen[key] = seen = self._seen.get(key, 0) + 1
        if left_out:
            record.fedcpsc = {**_fields(record), "left_out": left_out}
        return seen <= self._most


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    given: Mapping[str, Any] = getattr(record, "fedcpsc", {})
    return {name: given[name] for name in FIELDS if given.get(name) not in (None, "")}


def _where(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, _, frames = record.exc_info
    return {"where": "".join([*traceback.format_tb(frames), kind.__name__])}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
