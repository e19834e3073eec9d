# SPDX-License-Identifier: Apache-2.0
"""Picture files in one folder for each class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcpsc.config import DataConfig
from fedcpsc.data.persons import from_file, from_folders
from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.errors import DataError, explain

__all__ = ["FOLDER"]


class _Folder(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        return (folder / split).is_dir()

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        here = _listing(folder / split)
        names: list[str] = _listing(folder / "train").classes if (folder / "train").is_dir() else here.classes
        unknown = sorted(set(here.classes) - set(names))
        if unknown:
            constraint = f"is in {folder / split} and not in train/"
            raise DataError(explain("label", unknown[0], constraint, f"classes are {', '.join(names)}"))
        number = {name: names.index(name) for name in here.classes}
        labels = np.array([number[here.classes[label]] for _, label in here.samples], np.int64)
        pictures = [Path(file) for file, _ in here.samples]
        found = Split(pictures, labels, tuple(names), str(folder / split))
        persons = config.persons if split == "train" else None
        if persons is not None and persons.kind == "folder":
            return replace(found, persons=from_folders(pictures, folder / split))
        if persons is not None and persons.kind == "file":
            records = [picture.relative_to(folder / split).as_posix() for picture in pictures]
            return replace(found, persons=from_file(folder / persons.file, "picture", records))
        return found

    def place_of(self, split: SplitName) -> str:
        return f"folder {split}/"


def _listing(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder  # noqa: PLC0415

    try:  # an empty class folder says that this silo has no such image
        return ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError as error:
        raise DataError(
            explain("data.path", str(folder), "has no class folders", "make one folder for each class")
        ) from error


FOLDER = _Folder(
    name="folder",
    summary="picture files of your own, as `train/<class>/` and, where there is a test split, `test/<class>/`",
    when="where your pictures are files",
    needs="a folder (`data.path`) in that form",
    parameters=("data.path", "data.test_share"),
    fits_own_files=True,
)
