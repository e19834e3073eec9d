# SPDX-License-Identifier: Apache-2.0
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ledger_under_load import DATA

from fedcpsc.errors import LedgerError
from fedcpsc.ledger.ledger import Ledger

SCRIPT = Path(__file__).parents[1] / "support" / "ledger_under_load.py"
MOMENTS = 100
BESIDE = ("-journal", "-wal", "-shm")


def left(counter: Path) -> int:
    return int.from_bytes(counter.read_bytes(), "little")


def wait_until_more_left(counter: Path, before: int) -> None:
    deadline = time.monotonic() + 60
    while left(counter) <= before:
        assert time.monotonic() < deadline, "the writing process answers no more"
        time.sleep(0.001)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A ledger that a process writes to all the time, and the counter of the images whose reply has left."""
    path, counter = tmp_path / "ledger.sqlite", tmp_path / "left"
    Ledger.create(path, DATA, 10**9).close()
    counter.write_bytes(bytes(8))
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(path), str(counter)], stderr=subprocess.PIPE)
    while left(counter) == 0:
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.01)
    yield path, counter
    process.kill()
    process.communicate()


def slowly(source: Path, target: Path) -> None:
    """Copies page by page, with rests in which the process writes."""
    with open(source, "rb") as read, open(target, "wb") as write:
        while chunk := read.read(4096 * 16):
            write.write(chunk)
            time.sleep(0.0005)


def copied(path: Path, folder: Path, number: int) -> Path:
    """The file alone, the file alone and slowly, or all that lies beside it, in either order."""
    folder.mkdir()
    files = [path, *(path.with_name(path.name + end) for end in BESIDE), path.with_suffix(".mark")]
    for file in [files[:1], files[:1], files, files[::-1]][number % 4]:
        if file.exists():
            (slowly if number % 4 == 1 else shutil.copyfile)(file, folder / file.name)
    return folder / path.name


def spent(path: Path, writing: bool) -> int | None:
    """What a copy says was spent; None where it refuses to open."""
    try:
        ledger = Ledger.open(path, DATA, new_mark=True) if writing else Ledger.read(path)
        found = ledger.status().spent.answers
        ledger.close()
    except LedgerError:
        return None
    return found


def test_a_copy_of_a_live_ledger_covers_every_reply_sent_before_it_began_or_refuses(
    live: tuple[Path, Path], tmp_path: Path
) -> None:
    path, counter = live
    order, copies, before = random.Random(13), [], 0
    for number in range(MOMENTS):
        wait_until_more_left(counter, before)  # on a busy machine the writer may get no turn for many copies
        time.sleep(order.uniform(0, 0.01))
        before = left(counter)
        copies.append((before, copied(path, tmp_path / str(number), number)))
    assert copies[-1][0] > copies[0][0] + MOMENTS, "the ledger was not written meanwhile"  # 5 images a reply
    read = [spent(copy, writing=False) for _, copy in copies]
    opened = sum(answers is not None for answers in read)
    assert opened, "refusing all would be no feat"  # how many are torn follows from the disk: 16 to 67 of 100 opened
    for number, ((before, copy), answers) in enumerate(zip(copies, read, strict=True)):
        assert answers is None or answers >= before, f"copy {number} forgets charges"
        if number % 5 == 0:
            budget = spent(copy, writing=True)
            assert budget is None or budget >= before, f"copy {number} has budget again"
    assert Ledger.read(path).status().spent.answers >= copies[-1][0]


def test_a_copy_of_the_file_alone_opens_for_reading_and_not_for_writing(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.sqlite", DATA, 10).close()
    (tmp_path / "copy").mkdir()
    copy = Path(shutil.copy(tmp_path / "ledger.sqlite", tmp_path / "copy"))
    assert Ledger.read(copy).status().left.answers == 10
    with pytest.raises(LedgerError, match=r"is missing: this may be a copy.*ledger restore.*ledger mark"):
        Ledger.open(copy, DATA)
    assert os.listdir(copy.parent) == ["ledger.sqlite"]


@pytest.mark.parametrize("index", ["asked_once", "answered_once"])
def test_a_copy_torn_between_table_and_index_is_refused(tmp_path: Path, index: str) -> None:
    """A replayed query that the index lacks would be charged a second time, or its reply be lost."""
    from fedcpsc.ledger.ledger import Charge

    path = tmp_path / "ledger.sqlite"
    ledger = Ledger.create(path, DATA, 100)
    ledger.reserve("first", "p", Charge(1))
    ledger.store("first", b"reply")
    page = ledger._db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0]
    ledger.close()
    older = path.read_bytes()
    ledger = Ledger.open(path, DATA)
    ledger.reserve("second", "p", Charge(1))
    ledger.store("second", b"reply")
    ledger.close()
    newer = bytearray(path.read_bytes())
    newer[(page - 1) * 4096 : page * 4096] = older[(page - 1) * 4096 : page * 4096]
    path.write_bytes(newer)
    for opened in (lambda: Ledger.open(path, DATA), lambda: Ledger.read(path)):
        with pytest.raises(LedgerError, match=r"its parts do not fit together.*ledger backup"):
            opened()
