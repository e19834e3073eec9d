# SPDX-License-Identifier: Apache-2.0
"""Parquet files in the form of the Hugging Face hub: a column of encoded images, and one of classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.data.persons import Persons, from_column, from_file
from fedcpsc.data.readers.labels import NO_LABEL, Classes, LabelColumn, class_numbers, classes_of, doubts, label_column
from fedcpsc.data.readers.listing import unread
from fedcpsc.data.readers.shards import has_files, split_files
from fedcpsc.data.readers.source import DataSource, Split, SplitName
from fedcpsc.data.reading import LeftOut, Tally, first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable
from fedcpsc.silo_config import DataConfig

__all__ = ["PARQUET", "image_rows"]

_LABEL = "label or remove them"
_EMBED = "embed the images in the file"
_NO_BYTES = "without the bytes of an image"
_Rows = npt.NDArray[np.int64]


class _Parquet(DataSource):
    def has_split(self, folder: Path, split: SplitName) -> bool:
        return has_files(folder, split)

    def read(self, config: DataConfig, folder: Path, split: SplitName) -> Split:
        files = split_files(folder, split)
        persons = config.persons if split == "train" else None
        wanted = {"data.image_column": config.image_column, "data.label_column": config.label_column}
        if persons is not None and persons.kind == "column":
            wanted["data.persons.column"] = persons.column
        tables = [_table(file, wanted) for file in files]
        rows = _RowNames(files, tables)
        place = str(files[0]) if len(files) == 1 else f"{len(files)} files {folder}/{split}-*.parquet"

        own = [_labels(table, file, config) for table, file in zip(tables, files, strict=True)]
        training = own if split == "train" else [*_training_labels(folder, config)] or own
        classes = classes_of(training, config.label_column)
        labels = np.concatenate([class_numbers(column, classes, config.label_column) for column in own])
        pictures: list[bytes | None] = []
        for table, file in zip(tables, files, strict=True):
            pictures += _encoded_images(table, config.image_column, file, "data.image_column")

        labelled, there = labels != NO_LABEL, np.array([data is not None for data in pictures], bool)
        tally = Tally()
        skip, no_label = config.skip_damaged, "without a label (null, NaN or -1)"
        _leave_out(
            tally,
            rows,
            ~labelled,
            no_label,
            "data.label_column",
            config.label_column,
            _LABEL,
            "data",
            skip_damaged=skip,
        )
        _leave_out(
            tally, rows, ~there, _NO_BYTES, "data.image_column", config.image_column, _EMBED, "data", skip_damaged=skip
        )
        kept = np.flatnonzero(labelled & there)
        return Split(
            [data for data, good in zip(pictures, labelled, strict=True) if good and data is not None],
            labels[kept],
            classes.names,
            place,
            persons=_persons(config, folder, tables, kept, place) if persons is not None else None,
            named=classes.named,
            left_out=tally.found(),
            notes=(*_notes(own, classes), *(doubts(own, classes) if split == "train" else ()), *_unread(folder, split)),
            record=lambda i: rows[int(kept[i])],
        )

    def place_of(self, split: SplitName) -> str:
        return f"{split}.parquet"


def image_rows(
    files: Sequence[Path], column: str, section: str, *, skip_damaged: bool
) -> tuple[list[bytes], list[str], tuple[LeftOut, ...]]:
    """The encoded images of all rows, the rows' names, and the rows that were left out; no other column is read.

    Args:
        files: parquet files, at least one.
        column: name of the column of images.
        section: section of the configuration that names files and column, for errors.
        skip_damaged: whether rows without the bytes of an image are left out, instead of refused.

    Raises:
        DataError: a file or the column cannot be read, or rows have no image.
    """
    key = f"{section}.image_column"
    tables = [_table(file, {key: column}, f"{section}.path") for file in files]
    rows, tally = _RowNames(files, tables), Tally()
    encoded = [
        data for table, file in zip(tables, files, strict=True) for data in _encoded_images(table, column, file, key)
    ]
    missing = np.array([data is None for data in encoded], bool)
    _leave_out(tally, rows, missing, _NO_BYTES, key, column, _EMBED, section, skip_damaged=skip_damaged)
    kept = [(data, rows[row]) for row, data in enumerate(encoded) if data is not None]
    return [data for data, _ in kept], [name for _, name in kept], tally.found()


class _RowNames:
    """Names of the rows of several files, counted over all of them."""

    def __init__(self, files: Sequence[Path], tables: Sequence[Any]) -> None:
        self._files = files
        self._starts = np.cumsum([0, *map(len, tables)])

    def __getitem__(self, row: int) -> str:
        k = int(np.searchsorted(self._starts, row, "right")) - 1
        return f"{self._files[k]}, row {row - self._starts[k]}"


def _table(file: Path, wanted: dict[str, str], key: str = "data.path") -> Any:
    """The wanted columns of a file, given by the configuration's key for each; `key` is that of the file."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            for field, column in wanted.items():
                if schema.names.count(column) != 1:
                    constraint = f"{'no such column' if column not in schema.names else 'several such columns'} in "
                    there = f"use one of: {first_of(schema.names, len(schema.names), 20)}"
                    raise DataError(explain(field, column, constraint + file.name, there))
            table = parquet.read(columns=list(wanted.values()), use_threads=False)
        table.validate(full=True)  # damage that no reader has noticed would end the process later
    except (OSError, ValueError, KeyError, OverflowError, MemoryError, pa.ArrowException) as error:
        reason = printable(str(error))[:200]
        raise DataError(explain(key, str(file), f"cannot be read ({reason})", "restore the parquet file")) from error
    return table


def _labels(table: Any, file: Path, config: DataConfig) -> LabelColumn:
    return label_column(table.column(config.label_column), config.label_column, file, table.schema.metadata)


def _training_labels(folder: Path, config: DataConfig) -> list[LabelColumn]:
    """Labels of the training split, whose classes are the source's; none where there is no such split."""
    if not has_files(folder, "train"):
        return []
    wanted = {"data.label_column": config.label_column}
    return [_labels(_table(file, wanted), file, config) for file in split_files(folder, "train")]


def _leave_out(
    tally: Tally,
    rows: _RowNames,
    mask: npt.NDArray[np.bool_],
    what: str,
    key: str,
    column: str,
    remedy: str,
    section: str,
    *,
    skip_damaged: bool,
) -> None:
    """Counts the rows of `mask` as left out, where that is wanted.

    Args:
        tally: count of what is left out.
        rows: names of the rows.
        mask: rows in question, bool [N].
        what: what they lack, as in "row(s) without a label".
        key: configuration's key of the column.
        column: name of the column.
        remedy: advice how to complete them.
        section: section of the configuration with `skip_damaged`.
        skip_damaged: whether that is wanted.

    Raises:
        DataError: where there are some and it is not, or where all rows are like that.
    """
    found = np.flatnonzero(mask)
    if len(found) and (not skip_damaged or len(found) == len(mask)):
        names = first_of((rows[row] for row in found.tolist()), len(found), 5)
        all_of_them = ", or remove the file: it is of no use here"
        skip = f", or set {section}.skip_damaged: true to leave them out" if len(found) < len(mask) else all_of_them
        constraint = f"{len(found)} of {len(mask)} rows {what}: {names}"
        raise DataError(explain(key, column, constraint, f"{remedy}{skip}"))
    for row in found.tolist():
        tally.add(f"row(s) {what}", rows[row])


def _encoded_images(table: Any, name: str, file: Path, key: str) -> list[bytes | None]:
    """The encoded bytes of the hub's image form, struct<bytes: binary, path: string>, or of a column of bytes."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    column, shown = table.column(name), name
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column, shown = pc.struct_field(column, "bytes"), f"{name}.bytes"
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)):
        constraint = f"{shown} is {printable(str(kind))[:80]} in {printable(file.name)}"
        remedy = "must hold images as {bytes, path}, bytes embedded: an encoded file's, as binary, not text or list"
        raise DataError(explain(key, name, constraint, remedy))
    encoded: list[bytes | None] = column.to_pylist()
    return encoded


def _persons(config: DataConfig, folder: Path, tables: Sequence[Any], kept: _Rows, place: str) -> Persons | None:
    """The persons of the rows that are kept; None for persons that are invented later.

    Args:
        config: configuration of the images, with persons.
        folder: folder of the source.
        tables: rows of each file.
        kept: numbers of the rows that are kept, over all files.
        place: place of the rows, for errors.

    Raises:
        DataError: where some of them have no person.
    """
    persons = config.persons
    if persons is not None and persons.kind == "file":
        rows = [str(row) for row in range(sum(map(len, tables)))]
        return from_file(folder / persons.file, "row", rows)[kept]
    if persons is not None and persons.kind == "column":
        ends = np.cumsum([0, *map(len, tables)])
        whole = []
        for table, (start, end) in zip(tables, itertools.pairwise(ends), strict=True):
            part = kept[(kept >= start) & (kept < end)] - start
            whole.append(table if len(part) == len(table) else table.take(part))
        return from_column(whole, persons.column, place)
    return None


def _notes(columns: Sequence[LabelColumn], classes: Classes) -> tuple[str, ...]:
    """What an owner may not expect of the labels."""
    notes = []
    without = [column.file.name for column in columns if column.names is None and column.texts is None]
    if classes.listed and without:
        notes.append(f"{first_of(without, len(without), 3)} lists no names: its numbers are taken as the others' names")
    otherwise = [column.file.name for column in columns if column.names not in (None, classes.names)]
    if otherwise:
        notes.append(f"{first_of(otherwise, len(otherwise), 3)} lists the classes otherwise, and was mapped by name")
    if not classes.named:
        notes.append("the file names no classes: they have numbers alone")
    return tuple(notes)


def _unread(folder: Path, split: SplitName) -> tuple[str, ...]:
    """What lies beside the splits, said once: with the training split, where there is one."""
    common = not has_files(folder, "train")
    if split != "train" and not common:
        return ()
    return unread(folder, _is_of_a_split, "those of train and test", common=common)


def _is_of_a_split(path: Path) -> bool:
    return path.suffix == ".parquet" and path.stem.partition("-")[0] in ("train", "test")


PARQUET = _Parquet(
    name="parquet",
    summary="your own `train.parquet` and, where there is a test split, `test.parquet`, as Hugging Face's hub has them",
    when="where your pictures are rows of a table, or come from the hub",
    needs="a folder (`data.path`) with those files",
    parameters=("data.path", "data.test_share", "data.image_column", "data.label_column"),
    fits_own_files=True,
)
