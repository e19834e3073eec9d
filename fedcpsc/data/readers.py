"""Where pictures and labels lie: one reader for each form of source, none of which decodes.

A reader takes the configuration, the source's folder and the name of a split, and gives the split's pictures with
their labels, and the training split's persons where the configuration names them. Class names and their order come
from the training split, so that label k means the same in both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.config import DataConfig
from fedcpsc.data.decode import Picture
from fedcpsc.data.persons import Persons, from_column, from_file, from_folders
from fedcpsc.errors import DataError, explain

__all__ = ["Split", "SplitName", "has_split", "read_split"]

SplitName: TypeAlias = Literal["train", "test"]

_EMBEDDED = Path()  # what a reader gets that needs no folder


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures that are not decoded yet.

    Attributes:
        pictures: N encoded pictures.
        labels: int64 [N], in [0, len(class_names)).
        class_names: K names in label order; numbers where the source has no names.
        place: where they lie, for errors.
        persons: id of the person behind each picture; None where each stands for itself, and in a test split, which
            nobody trains on.
    """

    pictures: Sequence[Picture]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    place: str
    persons: Persons | None = None

    def name_of(self, i: int) -> str:
        """What to call picture i in an error."""
        picture = self.pictures[i]
        return str(picture) if isinstance(picture, Path) else f"{self.place}, row {i}"


def has_split(config: DataConfig, root: Path | None, split: SplitName) -> bool:
    """Whether the source has the split `split`; reads nothing.

    Raises:
        DataError: where the source needs a folder and there is none.
    """
    if config.source == "digits":
        return split == "train"
    folder = _folder_of(root)
    if config.source == "parquet":
        return bool(_parquet_files(folder, split))
    if config.source == "folder":
        return (folder / split).is_dir()
    return True  # torchvision's data sets always have both


def read_split(config: DataConfig, root: Path | None, split: SplitName) -> Split:
    """The split `split` of the source in `root` (None for `digits`, which is embedded).

    Raises:
        DataError: where files are missing, cannot be read, hold labels that are no classes, or do not name every
            training record's person as configured.
    """
    if not has_split(config, root, split):
        forms = {"parquet": f"{split}.parquet", "folder": f"folder {split}/"}
        wanted = forms.get(config.source, f"{split} split")
        raise DataError(explain("data.path", str(root), f"has no {wanted}", "check data.path or FEDCPSC_DATA"))
    found = _READERS[config.source](config, _EMBEDDED if root is None else root, split)
    _check_labels(found)
    return found


def _digits(config: DataConfig, root: Path, split: SplitName) -> Split:
    del config, root, split
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import, and only this source needs it)

    digits = load_digits()
    levels = np.round(digits.images * 255 / 16).astype(np.uint8)  # [1797, 8, 8], stored as 0..16
    return Split(list(levels), digits.target.astype(np.int64), tuple("0123456789"), "digits")


def _parquet(config: DataConfig, root: Path, split: SplitName) -> Split:
    files = _parquet_files(root, split)
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    place = str(files[0])
    persons = config.persons if split == "train" else None
    wanted = {"data.image_column": config.image_column, "data.label_column": config.label_column}
    if persons is not None and persons.kind == "column":
        wanted["data.persons.column"] = persons.column
    try:
        tables = [pq.read_table(file, columns=_columns(pq.read_schema(file), file, wanted)) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise DataError(explain("data.path", place, f"cannot be read ({error})", "restore the parquet file")) from error
    labels = np.concatenate([_whole_numbers(table, config.label_column, place) for table in tables])
    pictures: list[Picture] = []
    for table in tables:
        pictures += _encoded_images(table, config.image_column, place)
    names = _class_names(_parquet_files(root, "train") or files, config)
    found = Split(pictures, labels, names, place)
    if persons is not None and persons.kind == "column":
        return replace(found, persons=from_column(tables, persons.column, place))
    if persons is not None and persons.kind == "file":
        rows = [str(row) for row in range(len(labels))]
        return replace(found, persons=from_file(root / persons.file, "row", rows))
    return found


def _parquet_files(root: Path, split: SplitName) -> list[Path]:
    """`train.parquet`, or the hub's `train-00000-of-00002.parquet`, ..."""
    single = root / f"{split}.parquet"
    return [single] if single.is_file() else sorted(root.glob(f"{split}-*.parquet"))


def _columns(schema: Any, file: Path, wanted: dict[str, str]) -> list[str]:
    """The columns to read, by the configuration's key for each, all of them there."""
    for field, column in wanted.items():
        if column not in schema.names:
            there = ", ".join(schema.names)
            raise DataError(explain(field, column, f"no such column in {file.name}", f"use one of: {there}"))
    return list(wanted.values())


def _whole_numbers(table: Any, name: str, place: str) -> npt.NDArray[np.int64]:
    import pyarrow as pa  # noqa: PLC0415

    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        got = f"{column.type} with {column.null_count} nulls"
        raise DataError(explain("data.label_column", name, f"is {got} in {place}", "labels must be integers from 0"))
    labels: npt.NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return labels


def _encoded_images(table: Any, name: str, place: str) -> list[bytes]:
    """The encoded bytes of the hub's image form, struct<bytes: binary, path: string>."""
    import pyarrow as pa  # noqa: PLC0415

    column = table.column(name)
    if not pa.types.is_struct(column.type) or "bytes" not in [field.name for field in column.type]:
        raise DataError(
            explain("data.image_column", name, f"is {column.type}", "must hold images as {bytes, path}, bytes embedded")
        )
    encoded: list[bytes | None] = [data for chunk in column.chunks for data in chunk.field("bytes").to_pylist()]
    if None in encoded:
        row = f"{place}, row {encoded.index(None)}"
        raise DataError(explain("data.image_column", name, f"{row} has no bytes", "embed the images in the file"))
    return [data for data in encoded if data is not None]


def _class_names(files: list[Path], config: DataConfig) -> tuple[str, ...]:
    """From the hub's metadata, else the numbers up to the largest label."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    metadata = pq.read_schema(files[0]).metadata or {}
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][config.label_column]
        names = feature.get("names") or range(int(feature["num_classes"]))
    except (KeyError, TypeError, ValueError):  # the metadata is optional, and so is each part of it
        largest = -1
        for file in files:
            labels = pq.read_table(file, columns=[config.label_column]).column(config.label_column)
            largest = max([largest, *(int(label) for label in labels.unique().to_pylist() if label is not None)])
        names = range(largest + 1)
    return tuple(str(name) for name in names)


def _image_folder(config: DataConfig, root: Path, split: SplitName) -> Split:
    from torchvision.datasets import ImageFolder  # noqa: PLC0415

    def listing(name: str) -> Any:
        try:  # an empty class folder says that this silo has no such image
            return ImageFolder(str(root / name), allow_empty=True)
        except FileNotFoundError as error:
            raise DataError(
                explain("data.path", str(root / name), "has no class folders", "make one folder for each class")
            ) from error

    here = listing(split)
    names: list[str] = listing("train").classes if (root / "train").is_dir() else here.classes
    unknown = sorted(set(here.classes) - set(names))
    if unknown:
        raise DataError(
            explain("label", unknown[0], f"is in {root / split} and not in train/", f"classes are {', '.join(names)}")
        )
    number = {name: names.index(name) for name in here.classes}
    labels = np.array([number[here.classes[label]] for _, label in here.samples], np.int64)
    pictures = [Path(file) for file, _ in here.samples]
    found = Split(pictures, labels, tuple(names), str(root / split))
    persons = config.persons if split == "train" else None
    if persons is not None and persons.kind == "folder":
        return replace(found, persons=from_folders(pictures, root / split))
    if persons is not None and persons.kind == "file":
        records = [picture.relative_to(root / split).as_posix() for picture in pictures]
        return replace(found, persons=from_file(root / persons.file, "picture", records))
    return found


def _torchvision(class_name: str) -> Callable[[DataConfig, Path, SplitName], Split]:
    def read(config: DataConfig, root: Path, split: SplitName) -> Split:
        from torchvision import datasets  # noqa: PLC0415

        try:
            dataset = getattr(datasets, class_name)(str(root), train=split == "train", download=False)
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(
                explain(
                    "data.path", str(root), f"has no {class_name} in torchvision's form ({error})", "download it there"
                )
            ) from error
        pictures = list(np.asarray(dataset.data))  # uint8 [N, H, W] or [N, H, W, 3]
        labels = np.asarray(dataset.targets, np.int64)
        return Split(pictures, labels, tuple(dataset.classes), f"{config.source} in {root}")

    return read


def _folder_of(root: Path | None) -> Path:
    if root is None:
        raise DataError(
            explain("data.path", None, "this source needs a folder", "set data.path or the environment's FEDCPSC_DATA")
        )
    if not root.is_dir():
        raise DataError(explain("data.path", str(root), "is no folder", "check data.path or FEDCPSC_DATA"))
    return root


def _check_labels(split: Split) -> None:
    classes = len(split.class_names)
    if classes < 2:
        raise DataError(explain("classes", classes, f"{split.place} must have at least 2", "check the labels"))
    outside = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            explain(
                "label", int(split.labels[row]), f"{split.name_of(row)}: must be in [0, {classes})", "mend the label"
            )
        )


_READERS: dict[str, Callable[[DataConfig, Path, SplitName], Split]] = {
    "digits": _digits,
    "parquet": _parquet,
    "folder": _image_folder,
    "mnist": _torchvision("MNIST"),
    "fashion_mnist": _torchvision("FashionMNIST"),
    "cifar10": _torchvision("CIFAR10"),
    "cifar100": _torchvision("CIFAR100"),
}
