# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedcpsc.errors import ConfigError, LedgerError
from fedcpsc.gatekeeper.composition import exposures
from fedcpsc.ledger.backup import back_up, restore_backup
from fedcpsc.ledger.ledger import Budget, Charge, Denied, Ledger, Stored
from fedcpsc.ledger.mark import HighWaterMark

DATA = "clinic north"
WHY = {"accept_loss": True, "reason": "the disk died"}


class Silo:
    """A ledger, its mark and a backup of it, where they lie."""

    def __init__(self, folder: Path, backups: Path) -> None:
        self.path, self.mark = folder / "ledger.sqlite", HighWaterMark(folder / "ledger.mark")
        self.backup = backups / "backup.sqlite"

    def opened(self) -> Ledger:
        return Ledger.open(self.path, DATA)

    def asked(self, name: str) -> None:
        ledger = self.opened()
        ledger.reserve(name, "p", Charge(10, mu2=50, private=True))
        ledger.store(name, name.encode())
        ledger.close()

    def restored(self, **options: object) -> list[str]:
        return restore_backup(self.path, self.backup, DATA, self.mark, **options)  # type: ignore[arg-type]


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    """One query was answered, and backed up; one more was answered after that."""
    (tmp_path / "silo").mkdir()
    (tmp_path / "usb").mkdir()
    found = Silo(tmp_path / "silo", tmp_path / "usb")
    Ledger.create(found.path, DATA, 100, mu2=1000).close()
    found.asked("a")
    back_up(found.path, found.backup)
    found.asked("b")
    return found


def notes(path: Path, kind: str) -> list[dict[str, object]]:
    return [json.loads(row["note"]) for row in Ledger.read(path).export() if row["kind"] == kind]


def test_a_backup_is_one_sound_file_that_says_what_it_holds(silo: Silo) -> None:
    assert os.listdir(silo.backup.parent) == ["backup.sqlite"]
    assert silo.backup.stat().st_mode & 0o077 == 0
    found = Ledger.read(silo.backup).verify()
    assert (found.population, found.unit, found.spent) == (DATA, "record", Budget(10, 50))


def test_a_backup_never_overwrites_a_file_and_leaves_none_where_it_fails(silo: Silo) -> None:
    before = silo.backup.read_bytes()
    with pytest.raises(LedgerError, match="exists already"):
        back_up(silo.path, silo.backup)
    assert silo.backup.read_bytes() == before
    with pytest.raises(LedgerError, match="cannot be made"):
        back_up(silo.path, silo.backup.parent / "none" / "x.sqlite")
    content = bytearray(silo.path.read_bytes())
    content[content.index(b"clinic north")] ^= 1
    silo.path.write_bytes(content)
    with pytest.raises(LedgerError):
        back_up(silo.path, silo.backup.parent / "of-damage.sqlite")
    assert os.listdir(silo.backup.parent) == ["backup.sqlite"]


def test_a_backup_made_while_queries_are_charged_is_whole(silo: Silo) -> None:
    ledger = Ledger.open(silo.path, DATA)
    ledger.raise_budget(answers=10**6)
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            ledger.reserve(str(number), "p", Charge(1))
            ledger.store(str(number), bytes(20_000))

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(5):
        before = ledger.status().spent.answers
        assert back_up(silo.path, silo.backup.with_name(f"{number}.sqlite")).spent.answers >= before
        time.sleep(0.02)
    stop.set()
    thread.join()


def test_a_backup_goes_onto_a_new_machine(silo: Silo, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    there = Silo(tmp_path / "new", silo.backup.parent)
    said = there.restored()
    assert "must be the newest backup" in " ".join(said)
    ledger = there.opened()
    assert ledger.reserve("a", "p", Charge(10)) == Stored(b"a")
    assert ledger.verify().left == Budget(90, 950)
    assert [(note["how"], note["file"], note["row"]) for note in notes(there.path, "restored")] == [
        ("backup", "backup.sqlite", 3)
    ]
    assert sorted(os.listdir(there.path.parent)) == ["ledger.mark", "ledger.sqlite"]


def test_a_backup_older_than_the_ledger_that_is_there_is_refused_whatever_the_owner_says(silo: Silo) -> None:
    for options in ({}, WHY):
        with pytest.raises(LedgerError, match=r"older than the ledger there.*keep using"):
            silo.restored(**options)
    assert silo.opened().verify().spent.answers == 20


def test_a_backup_that_went_another_way_is_refused(silo: Silo, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    there = Silo(tmp_path / "new", silo.backup.parent)
    there.restored()
    there.asked("elsewhere")
    with pytest.raises(LedgerError, match="went separate ways"):
        restore_backup(silo.path, there.path, DATA, silo.mark)


def test_a_backup_that_holds_all_that_left_replaces_a_damaged_ledger_without_loss(silo: Silo) -> None:
    newest = silo.backup.with_name("newest.sqlite")
    back_up(silo.path, newest)
    silo.path.write_bytes(b"damaged" * 1000)
    restore_backup(silo.path, newest, DATA, silo.mark)
    assert silo.opened().verify().left == Budget(80, 900)
    (kept,) = (silo.path.parent / "past").iterdir()
    assert (kept / "ledger.sqlite").read_bytes() == b"damaged" * 1000
    assert (kept / "ledger.mark").exists()


@pytest.mark.parametrize("how", ["lost", "damaged", "damaged, with its mark", "an old copy put back"])
def test_a_backup_that_lacks_rows_is_taken_with_a_reason_alone_and_frees_no_budget(silo: Silo, how: str) -> None:
    if how == "lost":
        silo.path.unlink()
    elif how == "an old copy put back":
        silo.path.write_bytes(silo.backup.read_bytes())
    else:
        silo.path.write_bytes(b"damaged" * 1000)
    if how == "damaged, with its mark":
        silo.mark.path.unlink()
    with pytest.raises(LedgerError, match=r"--accept-loss --reason WHY, which spends the rest"):
        silo.restored()
    with pytest.raises(ConfigError, match="--reason"):
        silo.restored(accept_loss=True)
    said = silo.restored(**WHY)
    assert "raise the budget knowingly" in " ".join(said)
    ledger = silo.opened()
    assert ledger.verify().left == Budget(0, 0)
    assert ledger.reserve("too late", "p", Charge(1)) == Denied(conflict=False)
    (note,) = notes(silo.path, "restored")
    assert note["reason"] == "the disk died"
    ledger.raise_budget(answers=150, mu2=2000, note="knowingly")
    ledger.close()
    silo.asked("c")
    assert Ledger.read(silo.path).status().unprotected == 0


@pytest.mark.parametrize("in_backup", [True, False], ids=["a training was backed up", "the policy is for trainings"])
def test_no_epsilon_is_promised_after_a_loss_that_may_hold_a_training(silo: Silo, in_backup: bool) -> None:
    if in_backup:
        with contextlib.closing(silo.opened()) as ledger:
            ledger.release("teacher:w", Charge(0, private=True, mechanism="dp_sgd", model="w"))
        silo.backup.unlink()
        back_up(silo.path, silo.backup)
        silo.asked("c")
    silo.path.unlink()
    silo.restored(**WHY, trained=not in_backup)
    with contextlib.closing(Ledger.read(silo.path)) as ledger:
        assert ledger.verify().left == Budget(0, 0)
        assert exposures(ledger) > 0


def test_a_backup_of_another_population_or_unit_is_refused(silo: Silo) -> None:
    silo.path.unlink()
    with pytest.raises(LedgerError, match="ledger population"):
        restore_backup(silo.path, silo.backup, "clinic south", silo.mark)
    with pytest.raises(LedgerError, match="ledger unit"):
        restore_backup(silo.path, silo.backup, DATA, silo.mark, unit="person")
    assert not silo.path.exists()


def test_a_gatekeeper_that_still_runs_notices_that_its_ledger_was_replaced(silo: Silo) -> None:
    running = silo.opened()
    running.reserve("under way", "p", Charge(1))
    newest = silo.backup.with_name("newest.sqlite")
    back_up(silo.path, newest)
    restore_backup(silo.path, newest, DATA, silo.mark)
    with pytest.raises(LedgerError, match="was moved or replaced while open"):
        running.store("under way", b"reply")


def test_a_restore_that_is_cut_short_anywhere_loses_nothing_and_can_be_done_again(silo: Silo, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from fedcpsc.ledger import backup as ledger_backup
from fedcpsc.ledger.mark import HighWaterMark
calls = 0
def dying(event, args):
    global calls
    if event in ("os.rename", "os.remove", "os.mkdir", "sqlite3.connect", "open"):
        calls += 1
        if calls == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)
path = Path({str(silo.path)!r})
mark = HighWaterMark(Path({str(silo.mark.path)!r}))
sys.addaudithook(dying)
ledger_backup.restore_backup(path, Path(sys.argv[2]), {DATA!r}, mark)
"""
    for point in random.Random(1).sample(range(1, 40), 8):
        newest = silo.backup.with_name(f"{point}.sqlite")
        back_up(silo.path, newest)
        done = subprocess.run(
            [sys.executable, "-c", code, str(point), str(newest)], capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, -9), done.stderr
        try:
            opened = silo.opened()
        except LedgerError:
            restore_backup(silo.path, newest, DATA, silo.mark)
            opened = silo.opened()
        assert opened.verify().spent.answers == 20
        opened.close()
