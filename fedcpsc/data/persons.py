# SPDX-License-Identifier: Apache-2.0
"""Which records are of one person, read from where the owner says it: a column, folders or a CSV file.

A person's id is text. Spaces around it are not part of it, and one letter in two encodings of Unicode is one letter:
two spellings of one person would count as two persons, each protected for itself alone. Every record must have a
person: a record without one would stand outside what is promised, so it is an error and never left out silently.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import DataError, explain

__all__ = ["Persons", "from_column", "from_file", "from_folders", "invented_persons", "persons_and_classes"]

Persons: TypeAlias = npt.NDArray[np.str_]
"""text [N]: the person's id of each of N records."""

_MISSING = {"", "nan", "none", "null", "<na>"}  # what pandas, NumPy and SQL write where there is no value
_LONGEST = 200  # characters; an array of text takes the longest id's length for every record
_SHOWN = 3  # records named in an error
_FILL_IN = "fill them in, or drop those records"


def from_column(tables: Sequence[Any], column: str, place: str) -> Persons:
    """The persons in the column `column` of parquet tables that hold it; row numbers count over all tables, from 0.

    Integers and text are read as text, so that 7 and "7" are the same person. Floats are refused: pandas makes them of
    integers with gaps, and an identifier rounded to a float may be another person's.

    Raises:
        DataError: where the column is of another type, or some records have no person.
    """
    import pyarrow as pa  # noqa: PLC0415 (slow to import, and only parquet sources need it)

    texts: list[str | None] = []
    for table in tables:
        values = table.column(column)
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not (text or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            remedy = "store persons as integers or text"
            raise DataError(explain("data.persons.column", column, f"is {kind} in {place}", remedy))
        texts += [None if value is None else str(value) for value in values.to_pylist()]
    return _complete(texts, [f"row {i}" for i in range(len(texts))], "data.persons.column", column, place)


def from_folders(pictures: Sequence[Path], folder: Path) -> Persons:
    """The persons of `<folder>/<class>/<person>/<picture>`; folders inside a person's folder are that person's.

    Raises:
        DataError: where pictures lie directly in their class's folder.
    """
    parts = [picture.relative_to(folder).parts for picture in pictures]
    texts = [part[1] if len(part) > 2 else None for part in parts]
    return _complete(
        texts,
        ["/".join(part) for part in parts],
        "data.persons.kind",
        "folder",
        str(folder),
        "put every picture into <class>/<person>/",
    )


def from_file(file: Path, key: str, records: Sequence[str]) -> Persons:
    """The persons in a CSV file (UTF-8, comma-separated) with the header `<key>,person`, in the records' order.

    Args:
        file: path of the CSV file.
        key: name of the column that names the record, `picture` or `row`.
        records: name of each record as it must stand in that column, N different ones.

    Raises:
        DataError: where the file cannot be read, or records are missing, repeated, unknown or without a person.
    """
    lines = _csv_lines(file, key)
    named = [(_row_number(name) if key == "row" else name, person) for name, person in lines]
    times = Counter(name for name, _ in named)
    repeated = [name for name, count in times.items() if count > 1]
    if repeated:
        raise _file_error(file, f"names {_counted(repeated, key)} more than once", "keep one line for each record")
    known = set(records)
    unknown = [name for name in times if name not in known]
    if unknown:
        example = f"the source's first {key} is {records[0]}" if len(records) else "the source has no records"
        remedy = f"name the training records alone; {example}"
        raise _file_error(file, f"names {_counted(unknown, key)} that the source does not have", remedy)
    person_of = dict(named)
    absent = [record for record in records if record not in person_of]
    if absent:
        constraint = f"has no line for {_counted(absent, key)} of the source's {len(records)} records"
        raise _file_error(file, constraint, "add them, or drop those records")
    texts = [person_of[record] for record in records]
    return _complete(texts, [f"{key} {record}" for record in records], "data.persons.file", str(file), file.name)


def invented_persons(records: int, size: int, silo: int) -> Persons:
    """Persons for experiments: every `size` consecutive records of silo `silo` are one; the last may have fewer."""
    return np.array([f"silo-{silo}-block-{record // size}" for record in range(records)], np.str_)


def persons_and_classes(
    persons: Persons, labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Numbers the persons from 0, and finds each one's most frequent class.

    Args:
        persons: N ids.
        labels: int64 [N], class of each record, >= 0.

    Returns:
        The number of each record's person [N], each person's most frequent class (the smallest of several) [P], and how
        many persons have records of more than one class.
    """
    names, number = np.unique(persons, return_inverse=True)
    pairs, counts = np.unique(np.stack([number, labels]), axis=1, return_counts=True)  # [2, M], each (person, class)
    order = np.lexsort((pairs[1], -counts, pairs[0]))  # a person's pairs together, the most frequent first
    first = np.unique(pairs[0][order], return_index=True)[1]
    mixed = int((np.bincount(pairs[0], minlength=len(names)) > 1).sum())
    return number.astype(np.int64), pairs[1][order][first].astype(np.int64), mixed


def _complete(
    texts: Sequence[str | None], names: Sequence[str], field: str, value: str, place: str, remedy: str = _FILL_IN
) -> Persons:
    """The ids as one array, where every record has one."""
    ids = ["" if text is None else unicodedata.normalize("NFC", text.strip()) for text in texts]
    missing = [name for name, person in zip(names, ids, strict=True) if person.lower() in _MISSING]
    if missing:
        constraint = f"{len(missing)} of {len(ids)} records in {place} have no person ({_first(missing)})"
        raise DataError(explain(field, value, constraint, remedy))
    long = [name for name, person in zip(names, ids, strict=True) if len(person) > _LONGEST]
    if long:
        constraint = f"{len(long)} records in {place} have a person's id of over {_LONGEST} characters ({_first(long)})"
        raise DataError(explain(field, value, constraint, "use shorter ids"))
    return np.array(ids, np.str_)


def _csv_lines(file: Path, key: str) -> list[tuple[str, str]]:
    """(record, person) of every line below the header; blank lines are no lines."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise _file_error(file, f"cannot be read ({error.strerror})", "check data.persons.file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise _file_error(file, f"is not CSV in UTF-8 ({error})", "save it as such, comma-separated") from error
    header = [field.strip() for field in rows[0][1]] if rows else []
    if sorted(header) != sorted([key, "person"]):
        found = ",".join(header) or "nothing"
        raise _file_error(file, f"begins with {found[:80]!r}", f"its first line must be {key},person")
    broken = [f"line {number}" for number, row in rows if len(row) != len(header)]
    if broken:
        constraint = f"{len(broken)} lines have not {len(header)} fields ({_first(broken)})"
        raise _file_error(file, constraint, f"write {key},person in each")
    record, person = header.index(key), header.index("person")
    return [(row[record], row[person]) for _, row in rows[1:]]


def _row_number(text: str) -> str:
    """The canonical form of a row's number, as 7 for 007; what is no number stays as it is, hence unknown."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < 20 else text


def _file_error(file: Path, constraint: str, remedy: str) -> DataError:
    return DataError(explain("data.persons.file", str(file), constraint, remedy))


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({_first(names)})"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
