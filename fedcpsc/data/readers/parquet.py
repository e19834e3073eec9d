# SPDX-License-Identifier: Apache-2.0
"""Parquet files in the form of the Hugging Face hub: a column of encoded images, and one of class numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.config import DataConfig
from fedcpsc.data.decode import Picture
from fedcpsc.data.persons import from_column, from_file
from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.errors import DataError, explain

__all__ = ["PARQUET"]


class _Parquet(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        return bool(_parquet_files(folder, split))

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        files = _parquet_files(folder, split)
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
            raise DataError(
                explain("data.path", place, f"cannot be read ({error})", "restore the parquet file")
            ) from error
        labels = np.concatenate([_whole_numbers(table, config.label_column, place) for table in tables])
        pictures: list[Picture] = []
        for table in tables:
            pictures += _encoded_images(table, config.image_column, place)
        names = _class_names(_parquet_files(folder, "train") or files, config)
        found = Split(pictures, labels, names, place)
        if persons is not None and persons.kind == "column":
            return replace(found, persons=from_column(tables, persons.column, place))
        if persons is not None and persons.kind == "file":
            rows = [str(row) for row in range(len(labels))]
            return replace(found, persons=from_file(folder / persons.file, "row", rows))
        return found

    def place_of(self, split: SplitName) -> str:
        return f"{split}.parquet"


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


PARQUET = _Parquet(
    name="parquet",
    summary="your own `train.parquet` and, where there is a test split, `test.parquet`, as Hugging Face's hub has them",
    when="where your pictures are rows of a table, or come from the hub",
    needs="a folder (`data.path`) with those files",
    parameters=("data.path", "data.test_share", "data.image_column", "data.label_column"),
    fits_own_files=True,
)
