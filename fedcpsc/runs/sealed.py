# SPDX-License-Identifier: Apache-2.0
"""A file whose first line is the SHA-256 of the rest: any damage is seen before the content is believed.

A checkpoint is a zip file of raw numbers, and its readers take most flipped bits for other numbers. SHA-256 rather than
a CRC, because a file of gigabytes may lose whole blocks, and because hashing costs less than writing. It has no key: it
finds what a disk, a copy or a cut-off download did, not what someone did on purpose.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from typing_extensions import Buffer

from fedcpsc.files import durable

__all__ = ["read_sealed", "write_sealed"]

_MARK = b"fedcpsc sha256 "
_ZIP = b"PK\x03\x04"  # how torch's files begin
_HEAD = len(_MARK) + 64 + 1  # the mark, 64 hexadecimal digits and the line's end


class _Hashing(io.RawIOBase):
    """Passes on what is written to it, and hashes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self.hash.update(data)
        return self._file.write(data)


def write_sealed(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replaces a file by a checksum and what `write` writes, whole or not at all.

    Args:
        path: path of the file.
        write: function that writes the content to the file it is given, from its beginning to its end.

    Raises:
        OSError: it cannot be written; the file before it is kept.
    """
    with durable(path) as file:
        file.write(bytes(_HEAD))
        hashing = _Hashing(file)
        write(cast(BinaryIO, hashing))
        file.seek(0)
        file.write(_MARK + hashing.hash.hexdigest().encode("ascii") + b"\n")


def read_sealed(path: Path, tell: Callable[[str], None]) -> io.BytesIO:
    """The content of a file that torch wrote, behind its checksum or, as in earlier versions, without one.

    Args:
        path: path of the file.
        tell: function called with one line where there is no checksum.

    Raises:
        OSError: it cannot be read.
        ValueError: its checksum is another, or it begins like neither kind of file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if not head.startswith(_MARK):
            if not head.startswith(_ZIP):
                raise ValueError("it begins with neither a checksum nor what earlier versions wrote")
            file.seek(0)
            tell(f"{path} has no checksum, as in earlier versions: damage in it cannot be seen; the next will have one")
            return io.BytesIO(file.read())
        content = io.BytesIO()
        shutil.copyfileobj(file, content, 2**20)
    if head != _MARK + sha256(content.getbuffer()).hexdigest().encode("ascii") + b"\n":
        raise ValueError("its content does not have the checksum that it was written with")
    content.seek(0)
    return content
