# SPDX-License-Identifier: Apache-2.0
"""Whatever a command raises, the user meets one line and an exit code."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from fedcpsc import cli
from fedcpsc.commands import last_resort as module
from fedcpsc.commands import run_command
from fedcpsc.errors import ConfigError, LedgerError


@pytest.fixture
def fails_with(monkeypatch, tmp_path, capsys):
    """`fedcpsc run a.yaml` whose command raises; gives exit code and stderr."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(module.DEBUG_VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def main(error, *words):
        def raising(request, console):
            raise error

        monkeypatch.setattr(run_command, "run_once", raising)
        monkeypatch.setattr(sys, "argv", ["fedcpsc", *words, "run", "a.yaml"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    yield main
    signal.signal(signal.SIGTERM, before)


def test_an_unexpected_exception_is_one_line_that_names_a_file_for_its_owner_alone(fails_with, tmp_path):
    code, said = fails_with(ZeroDivisionError("division\nby zero"))
    assert code == 1
    assert said.count("\n") == 1
    assert said.startswith("unexpected error: ZeroDivisionError: division by zero; the full traceback is in ")
    (left,) = tmp_path.iterdir()
    assert said.rstrip().endswith(str(left))
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    text = left.read_text()
    assert text.startswith("fedcpsc 0.")
    assert "fedcpsc run a.yaml" in text
    assert "raise error" in text
    assert "ZeroDivisionError" in text


def test_what_an_exception_says_at_length_is_cut_on_the_line_and_whole_in_the_file(fails_with, tmp_path):
    _, said = fails_with(ValueError("x" * 1000))
    assert "x" * 1000 not in said
    assert "x" * 1000 in next(tmp_path.iterdir()).read_text()


def test_where_no_file_can_be_written_the_line_says_how_to_see_the_traceback(fails_with, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, said = fails_with(ValueError("x"))
    assert (code, said.count("\n")) == (1, 1)
    assert "FEDCPSC_DEBUG=1" in said


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT])
def test_what_the_disk_refuses_is_explained(fails_with, tmp_path, number):
    code, said = fails_with(OSError(number, os.strerror(number), "/srv/silo/policy.yaml"))
    assert code == 1
    assert said.startswith(f"file error: path='/srv/silo/policy.yaml': {os.strerror(number)}; ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert "path='the disk'" in fails_with(OSError(number, os.strerror(number)))[1]


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a=1: b; c"), 2), (LedgerError("d"), 1)])
def test_the_packages_own_errors_keep_their_words_and_codes(fails_with, tmp_path, error, code):
    got, said = fails_with(error)
    kind = "config" if code == 2 else "ledger"
    assert (got, said.strip()) == (code, f"{kind} error: {error}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ConfigError("a=1: b; c"), LedgerError("d")])
def test_an_error_outside_any_command_keeps_them_too(capsys, error):
    with pytest.raises(SystemExit) as ended, module.last_resort():
        raise error
    assert ended.value.code == (2 if isinstance(error, ConfigError) else 1)
    assert str(error) in capsys.readouterr().err


def test_stopping_is_no_error(fails_with, tmp_path):
    assert fails_with(KeyboardInterrupt())[0] == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_debug_shows_the_traceback_as_usual(fails_with, monkeypatch, tmp_path, how):
    monkeypatch.setenv(module.DEBUG_VARIABLE, "1" if how == "variable" else "")
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError("x"), *(["--debug"] if how == "flag" else []))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_passed_over_in_silence(tmp_path):
    code = """
import fedcpsc.commands.last_resort as module
with module.last_resort():
    for _ in range(100_000):
        print("a line of a ledger")
"""
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == 1


def test_the_version_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedcpsc", "--version"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("fedcpsc ")
