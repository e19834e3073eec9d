# SPDX-License-Identifier: Apache-2.0
"""The files in folders of classes: which are pictures, which are left out and why."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.class_names import folded
from fedcpsc.data.pixels import readable_extensions
from fedcpsc.data.reading import LeftOut, Tally, first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable

__all__ = ["Listing", "class_folders", "list_all_pictures", "list_pictures", "unread"]

_KEY = "data.path"
_HIDDEN = "hidden, or in a hidden folder"
_LINK = "in a folder that links to one above it"
_NO_FILE = "no file, or a link to none"
_NO_PICTURE = "not a picture, by its extension"
_BESIDE = "beside the folders of classes"
_BY_SYSTEMS = {"__macosx", "__pycache__", "$recycle.bin", "system volume information", "lost+found"}
_FILES_BY_SYSTEMS = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Listing:
    """Pictures by class.

    Attributes:
        pictures: paths of the pictures of each class, by its name, in order; a class may have none.
        left_out: files that were found and not taken.
        deep: number of pictures that lie in folders below their class's own.
    """

    pictures: dict[str, list[Path]]
    left_out: tuple[LeftOut, ...]
    deep: int


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders of classes in `folder` by their class's name, in the order of their names.

    Hidden ones (".ipynb_checkpoints", "@eaDir", "__MACOSX") are none. A class's name is the folder's, in Unicode's
    composed form and without space at its ends.

    Raises:
        DataError: where the folder cannot be read, or two names differ by case or space alone.
    """
    found: dict[str, Path] = {}
    alike: dict[str, str] = {}
    for entry in _entries(folder, _KEY):
        if _is_hidden(entry.name) or not (folder / entry.name).is_dir():
            continue
        name = unicodedata.normalize("NFC", entry.name).strip()
        if folded(name) in alike:
            constraint = f"in {printable(str(folder))}, differs from {alike[folded(name)]!r} by case or space alone"
            raise DataError(explain("class", name, constraint, "put both into one folder, or rename one"))
        alike[folded(name)] = name
        found[name] = folder / entry.name
    return found


def list_pictures(folder: Path) -> Listing:
    """The pictures of every class in `folder`.

    Raises:
        DataError: where a folder cannot be read, no class is there, or a class's folder holds files of which none is a
            picture; one without any file is a class without pictures.
    """
    classes = class_folders(folder)
    if not classes:
        remedy = "make one folder for each class"
        raise DataError(explain("data.path", str(folder), "has no class folders", remedy))
    tally, pictures, empty, deep = Tally(), {}, [], 0
    for entry in _entries(folder, _KEY):
        if not (folder / entry.name).is_dir():
            _leave_out(tally, entry.name, _HIDDEN if _is_hidden(entry.name) else _BESIDE)
        elif _is_hidden(entry.name):
            for path in _all_below(folder / entry.name):
                _leave_out(tally, str(path.relative_to(folder)), _HIDDEN)
    for name, place in classes.items():
        taken: list[Path] = []
        refused: Counter[str] = Counter()
        for path, reason in _files(place):
            if reason is None:
                taken.append(path)
                continue
            _leave_out(tally, str(path.relative_to(folder)), reason)
            if reason != _HIDDEN and path.name.lower() not in _FILES_BY_SYSTEMS:
                refused[path.suffix.lower() or "no extension"] += 1
        if refused and not taken:
            ends = ", ".join(f"{count} {printable(end)}" for end, count in refused.most_common(3))
            empty.append(f"{place.name} ({ends})")
        # as torchvision's ImageFolder orders them: the names of the folders, then those of the files in each
        pictures[name] = sorted(taken, key=lambda path: (str(path.parent), path.name))
        deep += sum(path.parent != place for path in taken)
    if empty:
        constraint = f"classes with files, of which none is a picture that can be read: {first_of(empty, len(empty))}"
        remedy = "convert them to PNG or JPEG, or remove the folders"
        raise DataError(explain("data.path", str(folder), constraint, remedy))
    return Listing(pictures, tally.found(), deep)


def list_all_pictures(folder: Path, key: str) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """The pictures in `folder` and all folders below it, by path, and what was found and not taken.

    Args:
        folder: folder that is there.
        key: configuration's key of the folder, for errors.

    Raises:
        DataError: a folder cannot be read.
    """
    tally, taken = Tally(), []
    for path, reason in _files(folder, key):
        if reason is None:
            taken.append(path)
        else:
            _leave_out(tally, str(path.relative_to(folder)), reason)
    return sorted(taken), tally.found()


def _leave_out(tally: Tally, name: str, reason: str) -> None:
    tally.add(f"file(s) {reason}", name)


def _files(top: Path, key: str = _KEY) -> Iterator[tuple[Path, str | None]]:
    """Every file below a class's folder, and why it is left out; None where it is taken."""
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(top, frozenset())]  # folders, and those above each
    while waiting:
        folder, above = waiting.pop()
        here = folder.stat()
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            yield folder, _LINK
            continue
        for entry in _entries(folder, key):
            path = folder / entry.name
            if _is_hidden(entry.name):
                yield from ((below, _HIDDEN) for below in (_all_below(path) if path.is_dir() else (path,)))
            elif path.is_dir():
                waiting.append((path, above | {identity}))
            elif not path.is_file():
                yield path, _NO_FILE
            else:
                yield path, None if path.suffix.lower() in readable_extensions() else _NO_PICTURE


def _all_below(folder: Path) -> Iterator[Path]:
    """Every file below a hidden folder; links are not followed, and what cannot be read is passed over."""
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in sorted(names))


def _entries(folder: Path, key: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        constraint = f"cannot be read ({error.strerror})"
        remedy = "check the folder and that this user may read it"
        raise DataError(explain(key, str(folder), constraint, remedy)) from error


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "@")) or name.lower() in _BY_SYSTEMS


def unread(folder: Path, is_read: Callable[[Path], bool], beside: str, *, common: bool) -> tuple[str, ...]:
    """Notes on folders and parquet files in a source's folder that may hold pictures and are not read.

    Args:
        folder: folder of the source.
        is_read: function that says whether the source reads a file or folder.
        beside: what the source reads, for the notes.
        common: whether only a test split lies there, beside which the folders `0`, `1`, ... are those of the silos.
    """
    others = [
        path
        for path in sorted(folder.iterdir())
        if not _is_hidden(path.name) and not is_read(path) and not (common and path.name.isdecimal())
    ]
    kinds = {
        "folders": [path.name for path in others if path.is_dir()],
        "parquet files": [path.name for path in others if path.suffix == ".parquet"],
    }
    return tuple(
        f"{what} beside {beside} are not read: {first_of(names, len(names), 3)}"
        for what, names in kinds.items()
        if names
    )
