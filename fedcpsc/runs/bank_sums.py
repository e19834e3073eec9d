# SPDX-License-Identifier: Apache-2.0
"""Checksums of a bank: every line of its journal carries one of itself and of the data that it commits.

A CRC-32 a line, because many lines are a few hundred bytes of data, and because reading the disk, not the sum, is to be
what a check of gigabytes costs. A flipped bit or up to 32 in a row are always seen, other damage but for one time in
four thousand million. Lines of earlier versions have no sum and are believed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedcpsc.errors import BankError, explain

__all__ = ["SUM", "FilePart", "LineSum", "check_sum", "event_sum", "read_parts"]

SUM = "crc32"  # key of the sum in a journal's line
_PIECE = 2**22  # bytes that are read together


class FilePart(NamedTuple):
    """Bytes [first, first + size) of one of the bank's files."""

    name: str
    first: int
    size: int


class LineSum(NamedTuple):
    """What a line of the journal says that it and its data add up to.

    Attributes:
        silo: silo whose answers the line commits; None where it commits images.
        rows: rows of the bank that it commits.
        event: sum of the line without its own sum, in [0, 2^32).
        total: sum of the line and its data that the journal holds; None in lines of earlier versions.
    """

    silo: str | None
    rows: slice
    event: int
    total: int | None


def event_sum(event: Mapping[str, Any], data: Iterable[bytes | memoryview] = ()) -> int:
    """CRC-32, in [0, 2^32), of an event without its sum, as JSON, and then of its data."""
    crc = zlib.crc32(json.dumps(event).encode())
    for part in data:
        crc = zlib.crc32(part, crc)
    return crc


def read_parts(folder: Path, parts: Sequence[FilePart]) -> Iterator[bytes]:
    """The bytes of some parts of a bank's files, in pieces that stay small; fewer where a file is shorter.

    Args:
        folder: folder of the bank.
        parts: parts of its files, in the order they are wanted.

    Raises:
        OSError: a file cannot be read.
    """
    for name, first, size in parts:
        with (folder / name).open("rb") as file:
            file.seek(first)
            left = size
            while left and (data := file.read(min(left, _PIECE))):
                yield data
                left -= len(data)


def check_sum(folder: Path, line: LineSum, parts: Sequence[FilePart]) -> None:
    """Reads the data that a line commits and holds them against its sum.

    Args:
        folder: folder of the bank.
        line: sum of the line.
        parts: where its data lie, in the order they were summed.

    Raises:
        BankError: they are not what was written; with the files' names.
    """
    crc, names = line.event, " or ".join(part.name for part in parts)
    try:
        for data in read_parts(folder, parts):
            crc = zlib.crc32(data, crc)
    except OSError as error:
        raise _damaged(folder, names, f"cannot be read ({error.strerror})") from error
    if crc != line.total:
        rows = f"rows {line.rows.start} to {line.rows.stop - 1}, or their line of the journal"
        raise _damaged(folder, names, f"does not have the checksum that it was written with ({rows})")


def _damaged(folder: Path, names: str, why: str) -> BankError:
    return BankError(explain("bank", f"{folder}/{names}", why, "restore the folder from a backup, or start a new run"))
