"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["durable", "write_whole"]


def write_whole(path: str | Path, text: str, *, private: bool = False) -> None:
    """Writes UTF-8 text beside `path` and renames it: whoever reads meets the old content or the new, never half.

    Args:
        path: of the file.
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


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes the place of `path` when all is on the disk: a crash leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
