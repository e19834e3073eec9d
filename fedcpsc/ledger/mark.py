# SPDX-License-Identifier: Apache-2.0
"""The high-water mark: a small file that remembers the ledger's newest row, and so finds an old copy put back.

It is written after each commit and before a reply leaves: every charge whose reply left is covered. It only ever moves
forward. Whoever can write ledger and mark can do anything: keep the mark on another volume (`policy.high_water_mark`).
By default it lies beside the ledger; a copy of the ledger's file alone then lacks it, and does not open for writing.

The file has two slots, written in turn and in place: one synchronisation of the disk each time, and a write that is cut
short leaves the slot before. The older form, one line `seq hash`, is read too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcpsc.errors import LedgerError, explain
from fedcpsc.files import sync

__all__ = [
    "MARK_FILE",
    "HighWaterMark",
    "MarkState",
    "default_mark",
    "missing_mark",
    "older_than_mark",
]

MARK_FILE = "ledger.mark"
_SLOT = 4096  # bytes; no disk writes a smaller part of it alone and leaves the next slot torn
_DIGITS = 16


def default_mark(ledger: Path) -> Path:
    """The mark beside a ledger's file where nothing else is named: `ledger.mark` for `ledger.sqlite`."""
    return ledger.with_suffix(".mark")


def missing_mark(mark: Path, version: int) -> LedgerError:
    """The error of a ledger without its mark.

    Args:
        mark: file that is missing.
        version: format version of the ledger.
    """
    why = "is missing: this may be a copy of a ledger that went on elsewhere"
    remedy = (
        "put the mark back, or restore a backup: fedcpsc ledger restore; or declare this file the newest: ledger mark"
    )
    if version == 1:
        remedy = "a ledger of an earlier version had none: fedcpsc ledger migrate SILO_DIR --population NAME"
    return LedgerError(explain("high_water_mark", str(mark), why, remedy))


def older_than_mark(newest: int, marked: int) -> LedgerError:
    """The error of a ledger that lacks what its mark noted."""
    why = f"is older than its high-water mark, row {marked}, or another ledger"
    remedy = "put the newest file back, or restore a backup: fedcpsc ledger restore"
    return LedgerError(explain("ledger", f"row {newest}", why, remedy))


@dataclass(frozen=True)
class MarkState:
    """How a ledger stands to its high-water mark.

    Attributes:
        kind: `matches`: all that the mark noted is in the ledger; `missing`: there is no mark; `ahead`: the mark noted
            a row that the ledger lacks, so the ledger is an old copy or another one; `unreadable`: the file is damaged.
        row: number of the row that the mark noted, 0 where there is none.
        path: file of the mark.
    """

    kind: Literal["matches", "missing", "ahead", "unreadable"]
    row: int
    path: Path


@dataclass(frozen=True)
class HighWaterMark:
    """The mark in one file.

    Attributes:
        path: the file; it need not exist.
    """

    path: Path

    def read(self) -> tuple[int, str] | None:
        """(number, hash) of the newest row that was noted, or None where there is no file.

        Raises:
            LedgerError: where the file is not a mark.
        """
        try:
            with open(self.path, "rb") as file:
                return self._newest(file.read(4 * _SLOT))[1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error

    def begin(self, seq: int, digest: str) -> None:
        """Makes the file anew at (seq, digest), whole or not at all, in place of any there was.

        Raises:
            LedgerError: where the file cannot be written.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            partial.unlink(missing_ok=True)
            with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(_slot(seq, digest) + b" " * _SLOT)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
            sync(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def advance(self, seq: int, digest: str) -> None:
        """Moves the mark to (seq, digest) unless it is there or further.

        Raises:
            LedgerError: where the file is missing, is not a mark, or cannot be written.
        """
        try:
            with open(self.path, "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                place, (newest, _) = self._newest(file.read(4 * _SLOT))
                if newest >= seq:
                    return
                if place is None:
                    self.begin(seq, digest)  # a file of the older form
                    return
                os.pwrite(file.fileno(), _slot(seq, digest), (1 - place) * _SLOT)
                os.fdatasync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _newest(self, content: bytes) -> tuple[int | None, tuple[int, str]]:
        """The slot that holds the newest row (None in the older form), and (number, hash) of that row."""
        found = [(place, _read_slot(content[place * _SLOT : (place + 1) * _SLOT])) for place in (0, 1)]
        whole = [(seen, place) for place, seen in found if seen is not None]
        if whole:
            seen, place = max(whole)
            return place, seen
        words = content.split()
        if len(words) == 2 and words[0].isdigit():
            return None, (int(words[0]), words[1].decode("ascii", "replace"))
        raise self._unreadable("its content is none")

    def _unreadable(self, why: str) -> LedgerError:
        return LedgerError(
            explain(
                "high_water_mark",
                str(self.path),
                f"is not a mark that can be read ({why})",
                "restore the file, or move it away and begin one: fedcpsc ledger mark",
            )
        )

    def _unwritable(self, error: OSError) -> LedgerError:
        why = f"cannot be written ({error.strerror})"
        return LedgerError(explain("high_water_mark", str(self.path), why, "make it and its folder writable"))


def _slot(seq: int, digest: str) -> bytes:
    words = f"{seq} {digest}"
    return f"{words} {_check(words)}\n".encode("ascii").ljust(_SLOT)


def _read_slot(content: bytes) -> tuple[int, str] | None:
    words = content.decode("ascii", "replace").split()
    if len(words) != 3 or _check(f"{words[0]} {words[1]}") != words[2]:
        return None
    return int(words[0]), words[1]


def _check(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:_DIGITS]
