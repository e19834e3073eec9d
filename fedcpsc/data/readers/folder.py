# SPDX-License-Identifier: Apache-2.0
"""Picture files in one folder for each class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedcpsc.data.persons import from_file, from_folders
from fedcpsc.data.readers.listing import Listing, class_folders, list_pictures, unread
from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.data.reading import first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.silo_config import DataConfig

__all__ = ["FOLDER"]


class _Folder(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        return (folder / split).is_dir()

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        here = list_pictures(folder / split)
        names = list(here.pictures)
        if split != "train" and (folder / "train").is_dir():
            names = list(class_folders(folder / "train"))
        unknown = sorted(set(here.pictures) - set(names))
        if unknown:
            constraint = f"is in {folder / split} and not in train/"
            raise DataError(explain("label", unknown[0], constraint, f"classes are {first_of(names, len(names))}"))
        number = {name: k for k, name in enumerate(names)}
        pictures = [picture for taken in here.pictures.values() for picture in taken]
        labels = [number[name] for name, taken in here.pictures.items() for _ in taken]
        found = Split(
            pictures,
            np.array(labels, np.int64),
            tuple(names),
            str(folder / split),
            left_out=here.left_out,
            notes=(*_notes(config, here, names), *_unread(folder, split)),
        )
        persons = config.persons if split == "train" else None
        if persons is not None and persons.kind == "folder":
            return replace(found, persons=from_folders(pictures, folder / split))
        if persons is not None and persons.kind == "file":
            records = [picture.relative_to(folder / split).as_posix() for picture in pictures]
            return replace(found, persons=from_file(folder / persons.file, "picture", records))
        return found

    def place_of(self, split: SplitName) -> str:
        return f"folder {split}/"


def _notes(config: DataConfig, here: Listing, names: list[str]) -> tuple[str, ...]:
    """What an owner may not expect."""
    notes = []
    if here.deep and (config.persons is None or config.persons.kind != "folder"):
        notes.append(f"{here.deep} lie in folders below their class's own, and are of that class")
    if all(name.isdecimal() for name in names) and (by_number := sorted(names, key=int)) != names:
        k = next(k for k, name in enumerate(names) if name != by_number[k])
        notes.append(f"the classes' names are ordered as text, not as numbers: output {k} is class {names[k]}")
    return tuple(notes)


def _unread(folder: Path, split: SplitName) -> tuple[str, ...]:
    """What lies beside the splits, said once: with the training split, where there is one."""
    common = not (folder / "train").is_dir()
    if split != "train" and not common:
        return ()
    return unread(folder, lambda path: path.name in ("train", "test"), "train/ and test/", common=common)


FOLDER = _Folder(
    name="folder",
    summary="picture files of your own, as `train/<class>/` and, where there is a test split, `test/<class>/`",
    when="where your pictures are files",
    needs="a folder (`data.path`) in that form",
    parameters=("data.path", "data.test_share"),
    fits_own_files=True,
)
