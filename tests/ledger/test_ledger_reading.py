# SPDX-License-Identifier: Apache-2.0
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.old_ledger import OLD_NAME, make_old_ledger

from fedcpsc.errors import LedgerError
from fedcpsc.ledger.ledger import Charge, Denied, Ledger, Reserved, Stored

DATA = "clinic north"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter too."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        os.chmod(made, 0o755)
        yield Path(made)
        os.chmod(made, 0o755)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in `folder` can be written, nor the folder: as on media that cannot."""
    for file in folder.iterdir():
        os.chmod(file, 0o444)
    os.chmod(folder, 0o555)
    if os.geteuid() == 0:  # whom no right stops
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        os.chmod(folder, 0o755)


def used(path: Path) -> Ledger:
    ledger = Ledger.create(path, DATA, 100)
    ledger.reserve("a", "p", Charge(10))
    ledger.store("a", b"reply" * 3000)
    return ledger


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


@pytest.mark.parametrize("alone", [False, True], ids=["with its journal and mark", "the file alone"])
def test_a_ledger_on_read_only_media_is_read_and_not_a_byte_changes(folder: Path, alone: bool) -> None:
    path = folder / "ledger.sqlite"
    used(path).close()
    if alone:
        (folder / "ledger.sqlite-journal").unlink()
        (folder / "ledger.mark").unlink()
    before = content(folder)
    with read_only(folder):
        ledger = Ledger.read(path, population=DATA)
        assert ledger.verify().spent.answers == 10
        assert [row["kind"] for row in ledger.export()] == ["created", "charged", "answered"]
        assert ledger.mark_state().kind == ("missing" if alone else "matches")
        ledger.close()
        with pytest.raises(LedgerError, match="read-only|cannot be written|is missing"):
            Ledger.open(path, DATA)
    assert content(folder) == before


def test_an_old_ledger_in_wal_mode_is_read_on_read_only_media(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    make_old_ledger(path)
    before = content(folder)
    assert Ledger.read(path).verify().spent.answers == 10  # where it could be written, just as well
    with read_only(folder):
        assert Ledger.read(path).verify().spent.answers == 10
    assert content(folder) == before


def test_an_old_ledger_whose_log_was_not_merged_is_never_read_without_it(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    make_old_ledger(path)
    (folder / "ledger.sqlite-wal").write_bytes(b"x" * 4152)
    with read_only(folder), pytest.raises(LedgerError, match=r"cannot be merged on read-only media; copy"):
        Ledger.read(path)


def died_while_writing(path: Path) -> None:
    """Leaves what a process leaves that is killed between the journal and the end of its transaction."""
    code = f"""
import os, signal, sqlite3
raw = sqlite3.connect({str(path)!r}, isolation_level=None)
raw.execute("PRAGMA cache_size=1"); raw.execute("PRAGMA journal_mode=PERSIST")
raw.execute("BEGIN IMMEDIATE")
raw.execute("DROP TRIGGER events_keep"); raw.execute("UPDATE events SET answers_spent = 0")
raw.execute("CREATE TABLE filler (x)")
for _ in range(50): raw.execute("INSERT INTO filler VALUES (randomblob(9000))")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_a_crash_left_half_written_is_rolled_back_where_that_can_be_and_told_where_not(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    used(path).close()
    died_while_writing(path)
    with read_only(folder), pytest.raises(LedgerError, match=r"half written.*read-only media; copy"):
        Ledger.read(path)
    for file in folder.iterdir():
        os.chmod(file, 0o600)
    assert Ledger.read(path).verify().spent.answers == 10


def test_a_reader_works_beside_a_writer_and_sees_what_it_charges(folder: Path) -> None:
    writer = used(folder / "ledger.sqlite")
    reader = Ledger.read(folder / "ledger.sqlite")
    writer.reserve("b", "p", Charge(5))
    assert reader.verify().spent.answers == 15
    assert reader.mark_state().kind == "matches"


def test_a_reader_tells_a_ledger_older_than_its_mark(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    ledger = used(path)
    ledger.close()
    copy = path.read_bytes()
    ledger = Ledger.open(path, DATA)
    ledger.reserve("b", "p", Charge(5))
    ledger.close()
    path.write_bytes(copy)
    reader = Ledger.read(path)
    assert (reader.mark_state().kind, reader.status().spent.answers) == ("ahead", 10)
    with pytest.raises(LedgerError, match="older than its high-water mark, row 4"):
        reader.verify()


# Ledgers of an earlier version ----------------------------------------------------------------------------------------


def test_an_old_ledger_opens_once_its_owner_says_so_and_its_rows_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    make_old_ledger(path)
    rows = list(Ledger.read(path).export())
    with pytest.raises(LedgerError, match=r"ledger migrate SILO_DIR --population NAME"):
        Ledger.open(path, DATA)
    with pytest.raises(LedgerError, match=r"mark.*ledger migrate"):
        Ledger.open(path, OLD_NAME)
    assert list(Ledger.read(path).export()) == rows
    ledger = Ledger.open(path, OLD_NAME, new_mark=True)
    ledger.name_population(DATA, "migrated")
    assert ledger.reserve("a", "p", Charge(10)) == Stored(b"reply")
    assert ledger.reserve("b", "p", Charge(101)) == Denied(conflict=False)
    assert isinstance(ledger.reserve("c", "p", Charge(90)), Reserved)
    assert ledger.carry("past", Charge(1))
    assert not ledger.carry("past", Charge(1))
    ledger.close()
    again = Ledger.open(path, DATA)
    assert again.verify().spent.answers == 101
    assert list(again.export())[:4] == rows
    assert [row["kind"] for row in again.export()][4:] == ["restored", "population", "charged", "carried"]
    assert not path.with_name("ledger.sqlite-wal").exists()


def test_an_old_ledger_that_another_process_holds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    make_old_ledger(path)
    holder = sqlite3.connect(path)
    holder.execute("SELECT count(*) FROM events").fetchone()
    with pytest.raises(LedgerError, match=r"another process holds the file.*stop the silo's gatekeeper"):
        Ledger.open(path, OLD_NAME, new_mark=True)
    holder.close()
    Ledger.open(path, OLD_NAME, new_mark=True)


# Damage ---------------------------------------------------------------------------------------------------------------

FLIPS = 400


def test_a_flipped_bit_anywhere_is_a_ledger_error_or_changes_nothing(tmp_path: Path) -> None:
    """Never another exception, and never another total."""
    whole, flipped = tmp_path / "ledger.sqlite", tmp_path / "flipped.sqlite"
    ledger = used(whole)
    for number in range(12):
        ledger.reserve(f"q{number}", "p", Charge(1, mechanism="noise"))
        ledger.store(f"q{number}", bytes(50))
    sound = ledger.status()
    ledger.close()
    order, refused = random.Random(7), []
    for number in range(FLIPS):
        flip_a_bit(whole, flipped, order)
        try:
            reader = Ledger.read(flipped)
            assert reader.verify() == sound, f"flip {number}"
            list(reader.export())
            reader.close()
        except LedgerError as error:
            refused.append(str(error))
    assert FLIPS / 4 < len(refused) < FLIPS
    assert all(": " in told and "; " in told for told in refused), "value, constraint and remedy"


def test_a_flipped_bit_never_frees_a_budget(tmp_path: Path) -> None:
    whole, flipped = tmp_path / "ledger.sqlite", tmp_path / "flipped.sqlite"
    used(whole).close()
    order, opened = random.Random(8), 0
    for _ in range(FLIPS // 8):
        flip_a_bit(whole, flipped, order)
        for name in ("flipped.sqlite-journal", "flipped.mark"):
            (tmp_path / name).unlink(missing_ok=True)
        try:
            writer = Ledger.open(flipped, DATA, new_mark=True)
            found = writer.reserve("a", "p", Charge(10))
            opened += 1
            assert found == Stored(b"reply" * 3000)
            assert writer.status().spent.answers == 10
            writer.close()
        except LedgerError:
            pass
    assert opened > 0


def flip_a_bit(whole: Path, flipped: Path, order: random.Random) -> None:
    damaged = bytearray(whole.read_bytes())
    bit = order.randrange(len(damaged) * 8)
    damaged[bit // 8] ^= 1 << bit % 8
    flipped.write_bytes(damaged)


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    used(path).close()
    content = path.read_bytes()
    assert b"add_remove" in content
    path.write_bytes(content.replace(b"add_remove", b"\xffdd_remove"))
    with pytest.raises(LedgerError):
        Ledger.read(path)


def test_a_file_cut_at_any_page_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    used(path).close()
    content = path.read_bytes()
    for pages in range(len(content) // 4096):
        cut = Path(shutil.copy(path, tmp_path / "cut.sqlite"))
        cut.write_bytes(content[: pages * 4096])
        with pytest.raises(LedgerError):
            Ledger.read(cut).verify()
