# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fedcpsc.errors import RunError, explain

__all__ = [
    "copy_bytes",
    "drop_half_a_line",
    "durable",
    "explained_writes",
    "owner_only",
    "private_folder",
    "write_whole",
]

_PIECE = 2**20  # bytes that are copied together


def write_whole(path: str | Path, text: str, *, private: bool = False) -> None:
    """Writes UTF-8 text beside `path` and renames it: whoever reads meets the old content or the new, never half.

    Args:
        path: path of the file.
        text: its new content.
        private: readable and writable by the owner alone (mode 0600), from the first byte on.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # one left by a crash would keep its mode
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def owner_only(path: str, flags: int) -> int:
    """An `opener` for `open`: what it makes is readable and writable by its owner alone (mode 0600)."""
    return os.open(path, flags, 0o600)


def private_folder(folder: Path) -> None:
    """Makes a folder for its owner alone (mode 0700), and what lies there already likewise (files 0600).

    Args:
        folder: path of the folder; those above it are made as usual.

    Raises:
        OSError: where it cannot be made, or belongs to another user.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (folder, *folder.iterdir()):
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(mode & 0o7700)


def sync(path: Path) -> None:
    """Hands a file or a folder that exists to the disk.

    Raises:
        OSError: where it cannot be opened or written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_bytes(source: Path, target: Path, size: int) -> None:
    """Copies the first bytes of a file into a new one, for its owner alone (mode 0600), and hands them to the disk.

    Where the file system can, both share the same blocks until one is written (a reflink): gigabytes are then copied at
    once, and take no room.

    Args:
        source: path of the file that is read.
        target: path of the new file, which must not exist.
        size: number of bytes, >= 0.

    Raises:
        OSError: one cannot be read or written, the target exists, or the source is shorter.
    """
    with source.open("rb") as read, open(target, "xb", opener=owner_only) as written:
        left = size
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):  # between these file systems, or on this system, it is not to be had
                while left and (done := os.copy_file_range(read.fileno(), written.fileno(), left)):
                    left -= done
        read.seek(size - left)
        written.seek(size - left)
        while left and (part := read.read(min(left, _PIECE))):
            written.write(part)
            left -= len(part)
        if left:
            raise OSError(errno.ENODATA, f"it is {left:,} bytes shorter than it should be")
        written.flush()
        os.fsync(written.fileno())


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` when all is on the disk: a crash leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # what a full disk has room for again, the next try needs
        raise


@contextmanager
def explained_writes(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a run's file is written into words for whoever keeps the disk.

    Raises:
        RunError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        remedy = "free space or fix the permissions, then go on with --resume: what was paid for is kept"
        raise RunError(explain("run", str(path), f"cannot be written ({error.strerror})", remedy)) from error


def drop_half_a_line(path: Path) -> None:
    """Cuts off a last line that a crash or a full disk left without its end, so that the next does not join it."""
    if path.exists():
        text = path.read_bytes()
        os.truncate(path, text.rfind(b"\n") + 1)
