# SPDX-License-Identifier: Apache-2.0
"""Lines of the log, in both forms."""

import json
import logging

import pytest

from fedcpsc import logs
from fedcpsc.errors import ConfigError
from fedcpsc.logs import JsonLines, TextLines, configure, configure_quietly, fields, form_of


@pytest.fixture(autouse=True)
def _as_before():
    loggers = [logging.getLogger(name) for name in ("fedcpsc", "uvicorn")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


log = logging.getLogger("fedcpsc.test")


def test_a_line_of_json_holds_sentence_and_fields_and_nothing_else(capsys):
    configure("json")
    log.info("answered a query", extra=fields(run="r", query_id="0a", images=2, code=None) | {"answers": [0.5, 0.5]})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "fedcpsc.test",
        "message": "answered a query",
        "run": "r",
        "query_id": "0a",
        "images": 2,
    }


def test_a_line_for_people(capsys):
    configure("text")
    log.warning("refused a query", extra=fields(silo="north", code="form", left=0))
    assert capsys.readouterr().err.endswith("Z WARNING refused a query silo=north code=form left=0\n")


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_nobody_can_begin_a_line_or_paint_the_terminal(form):
    forged = fields(run="r\n2026-11-22T00:00:00Z INFO all is well\x1b[2J\u2028")
    record = log.makeRecord("fedcpsc.test", logging.INFO, "", 1, "asked", (), None, extra=forged)
    assert form.format(record).isprintable()


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_of_an_exception_type_and_place_are_told_not_what_it_says(form):
    try:
        int("patient 4711")
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
    record = log.makeRecord("uvicorn.error", logging.ERROR, "", 1, "failed", (), trace)
    line = form.format(record)
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "invalid literal" not in line


def test_a_field_that_is_not_on_the_list_is_an_error():
    with pytest.raises(ValueError, match=r"fields=\['pixels'\]"):
        fields(pixels=[1])


def test_a_flood_of_lines_alike_is_cut_short_and_counted(capsys, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    configure("json", alike_a_minute=60)
    for _ in range(1000):
        log.warning("refused a query")
    log.info("another sentence")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 61
    assert "another sentence" in lines[-1]
    clock[0] += 61
    log.info("answered a query")
    log.info("answered a query")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["left_out"] == 940
    assert "left_out" not in second


def test_a_server_with_many_silos_logs_each(capsys):
    configure("text")
    for silo in range(100):
        log.info("asked a silo", extra=fields(silo=f"silo-{silo}"))
    assert len(capsys.readouterr().err.splitlines()) == 100


def test_the_environment_chooses_the_form_and_a_choice_given_goes_first(monkeypatch):
    monkeypatch.delenv("FEDCPSC_LOG", raising=False)
    assert form_of() is None
    monkeypatch.setenv("FEDCPSC_LOG", "json")
    assert (form_of(), form_of("text")) == ("json", "text")
    monkeypatch.setenv("FEDCPSC_LOG", "xml")
    with pytest.raises(ConfigError, match=r"FEDCPSC_LOG='xml': must be text or json"):
        form_of()


@pytest.mark.parametrize(("asked", "lines"), [("", 1), ("json", 2)])
def test_a_process_that_nobody_asked_for_a_log_writes_warnings_alone(capsys, monkeypatch, asked, lines):
    monkeypatch.setenv("FEDCPSC_LOG", asked)
    configure_quietly()
    log.info("answered a query")
    log.warning("refused a query")
    assert len(capsys.readouterr().err.splitlines()) == lines
