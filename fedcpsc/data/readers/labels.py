# SPDX-License-Identifier: Apache-2.0
"""Columns of labels as class numbers, and the names of the classes: one meaning for all files of a source.

Class numbers mean what the file's own list of names (Hugging Face's ClassLabel) says, so files that list the same names
in another order are mapped by name. How many classes there are is bounded by the records, never by a label: a record's
number that was taken for a label makes no list of a million names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.data.reading import first_of
from fedcpsc.errors import DataError, explain
from fedcpsc.printable import printable

__all__ = ["NO_LABEL", "Classes", "LabelColumn", "class_numbers", "classes_of", "doubts", "label_column"]

NO_LABEL = -1
"""Class number of a row without a label, as on the Hugging Face hub."""

_FEW = 16  # rows from which on labels that are hardly ever the same, or above all counts, are taken for a mistake
_MOST = 2**16  # classes that a message can tell apart
_EXACT = 2**53  # whole numbers below it are exact as floats
_NO_TEXT = {
    "",
    "nan",
    "<na>",
}  # what pandas writes where there is no value; no class is called so unless a list says it
_DOUBTFUL = {"none", "null", "n/a", "na"}  # the same, and names of classes too
_REMEDY = "is data.label_column right? If it is, list the names of all classes in the file (Hugging Face's ClassLabel)"

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """Labels of one file.

    Attributes:
        file: path of the file.
        values: class numbers as they stand there, or the number of each row's text in `texts`; `NO_LABEL` where there
            is none. int64 [N].
        texts: different texts of the column; None where it holds numbers.
        names: names of the numbers 0, 1, ... by the file's own list; None where it has none.
        declared: number of classes that a file without names states, else 0.
    """

    file: Path
    values: Labels
    texts: tuple[str, ...] | None
    names: tuple[str, ...] | None
    declared: int = 0


@dataclass(frozen=True)
class Classes:
    """Classes of a source.

    Attributes:
        names: K names in the order of the labels; numbers where there are none.
        named: whether they are names.
        listed: whether a file lists them in order, so that a number alone says which is meant.
    """

    names: tuple[str, ...]
    named: bool
    listed: bool = False


def label_column(column: Any, name: str, file: Path, metadata: dict[bytes, bytes] | None) -> LabelColumn:
    """One file's labels.

    Args:
        column: pyarrow's column of them.
        name: name of the column.
        file: path of the file.
        metadata: metadata of the file's schema, in which Hugging Face lists names.

    Raises:
        DataError: where the column holds neither whole numbers nor text, numbers that no class can have, or the list of
            names is damaged.
    """
    import pyarrow as pa  # noqa: PLC0415 - slow to import, and only parquet sources need it

    names = _listed_names(metadata, name, file)
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_null(kind):
        return LabelColumn(file, np.full(len(column), NO_LABEL, np.int64), None, names)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values, texts = _text_numbers(column.cast(pa.large_string()), names or ())
        return LabelColumn(file, values, texts, names)
    if pa.types.is_boolean(kind):
        return LabelColumn(file, _integers(column.cast(pa.int8()), name, file), None, names or ("false", "true"))
    if pa.types.is_floating(kind):
        column = _whole(column, name, file)
    elif not pa.types.is_integer(kind):
        constraint = f"is {printable(str(kind))[:80]} in {printable(file.name)}"
        remedy = "an image has one class here: store a whole number from 0, or its class's name"
        raise DataError(explain("data.label_column", name, constraint, remedy))
    return LabelColumn(file, _integers(column, name, file), None, names, _declared_count(metadata, name))


def classes_of(columns: Sequence[LabelColumn], name: str) -> Classes:
    """The classes of a source, by the columns of its training split (or of what it has).

    Args:
        columns: labels of all files, at least one.
        name: name of the column.

    Raises:
        DataError: where files list different names, or labels without names are more, or larger, than the records can
            bear out.
    """
    lists = [column for column in columns if column.names is not None]
    for column in lists[1:]:
        if set(column.names or ()) != set(lists[0].names or ()):
            theirs = f"{_quoted(column.names)}, and {printable(lists[0].file.name)} has {_quoted(lists[0].names)}"
            constraint = f"in {printable(column.file.name)} the classes are {theirs}"
            raise DataError(explain("data.label_column", name, constraint, "let all files list the same classes"))
    if lists:
        return Classes(lists[0].names or (), True, listed=True)
    texts = sorted({text for column in columns for text in column.texts or ()})
    rows = sum(int((column.values != NO_LABEL).sum()) for column in columns)
    if texts:
        if any(column.texts is None and (column.values != NO_LABEL).any() for column in columns):
            constraint = "is text in some files and numbers in others"
            raise DataError(explain("data.label_column", name, constraint, "store it alike in all files"))
        _check_plausible(name, rows, len(texts), None, texts)
        return Classes(tuple(texts), True)
    present = np.unique(np.concatenate([column.values for column in columns]))
    largest = int(present.max(initial=NO_LABEL))
    declared = max(column.declared for column in columns)
    if largest >= declared:
        _check_plausible(name, rows, int((present >= 0).sum()), largest, ())
    return Classes(tuple(map(str, range(max(declared, largest + 1)))), False)


def doubts(columns: Sequence[LabelColumn], classes: Classes) -> tuple[str, ...]:
    """Notes on classes that may be none: names that stand for a missing value too, and numbers that no picture has.

    Args:
        columns: labels of all files of the training split, at least one.
        classes: their classes.
    """
    if classes.listed:
        return ()
    if classes.named:
        doubtful = [name for name in classes.names if name.casefold() in _DOUBTFUL]
        remedy = "store null in rows without a label"
        return (f"taken for classes: {_quoted(doubtful)}; {remedy}",) if doubtful else ()
    present = set(np.unique(np.concatenate([column.values for column in columns])).tolist())
    stated = max(column.declared for column in columns)
    empty = [number for number in range(len(classes.names)) if number not in present]
    if not empty or stated >= len(classes.names):
        return ()
    shown = first_of(map(str, empty), len(empty), 3)
    return (
        f"{len(empty)} of the numbers 0 to {len(classes.names) - 1} have no picture: {shown}. Each is an output that"
        " says nothing: number the classes from 0 without gaps, and rows without a label -1",
    )


def class_numbers(column: LabelColumn, classes: Classes, name: str) -> Labels:
    """A file's labels as numbers of the source's classes; `NO_LABEL` where a row has none.

    Raises:
        DataError: where it names classes that the source does not have, or a number has no name in its own list.
    """
    if column.texts is None and column.names is None and (classes.listed or not classes.named):
        return column.values  # a source that lists names elsewhere means the same numbers
    own = column.texts if column.texts is not None else column.names or ()
    if not classes.named or (column.texts is None and column.names is None):
        theirs, others = ("names", "numbers") if not classes.named else ("numbers", "names")
        constraint = f"{printable(column.file.name)} has {theirs} of classes, and the training files have {others}"
        raise DataError(explain("data.label_column", name, constraint, "let all files list the same classes"))
    number = {text: k for k, text in enumerate(classes.names)}
    unknown = [text for text in own if text not in number]
    if unknown:
        constraint = f"{printable(column.file.name)} has the classes {_quoted(unknown)}, which are not among "
        raise DataError(
            explain("data.label_column", name, f"{constraint}{_quoted(classes.names)}", "name them as in training")
        )
    outside = np.flatnonzero((column.values < NO_LABEL) | (column.values >= len(own)))
    if len(outside):
        row = int(outside[0])
        constraint = f"{printable(str(column.file))}, row {row}: must be in [0, {len(own)})"
        raise DataError(explain("label", int(column.values[row]), constraint, "fix the label"))
    of_own = np.array([*(number[text] for text in own), NO_LABEL], np.int64)  # the last is what NO_LABEL finds
    return of_own[column.values]


def _check_plausible(name: str, rows: int, different: int, largest: int | None, texts: Sequence[str]) -> None:
    """Labels without a list of names must be few, and numbers no larger than a count of classes."""
    hardly_repeated = rows >= _FEW and 2 * different > rows
    if not hardly_repeated and (largest is None or largest < max(rows, _FEW)):
        return
    kind = f"labels such as {_quoted(texts[:2])}" if largest is None else f"labels up to {largest}"
    constraint = f"{kind} in {rows} rows"
    if hardly_repeated:
        many = (
            "as many classes as rows" if different == rows else f"{different} classes, so fewer than two rows a class"
        )
        constraint += f", {many}"
    raise DataError(explain("data.label_column", name, constraint, _REMEDY))


def _text_numbers(column: Any, listed: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """Number of each row's text among the different ones, sorted and without space around them.

    Args:
        column: pyarrow's column of text.
        listed: names of classes that the file lists, which are labels whatever they are.
    """
    encoded = column.combine_chunks().dictionary_encode()
    found = [str(text).strip() for text in encoded.dictionary.to_pylist()]
    texts = tuple(sorted({text for text in found if text.casefold() not in _NO_TEXT or text in listed} - {""}))
    number = {text: k for k, text in enumerate(texts)}
    of_found = np.array([*(number.get(text, NO_LABEL) for text in found), NO_LABEL], np.int64)
    return of_found[encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)], texts


def _whole(column: Any, name: str, file: Path) -> Any:
    """A column of floats as integers, where all are whole: what pandas makes of integers with gaps."""
    import pyarrow as pa  # noqa: PLC0415

    values = column.cast(pa.float64()).combine_chunks().fill_null(np.nan).to_numpy(zero_copy_only=False)
    real = ~np.isnan(values)
    broken = values[real & ~((np.floor(values) == values) & (np.abs(values) < _EXACT))]
    if len(broken):
        constraint = f"is {column.type} in {printable(file.name)}, with values such as {float(broken[0])!r}"
        raise DataError(explain("data.label_column", name, constraint, _REMEDY))
    return pa.array(np.where(real, values, NO_LABEL).astype(np.int64))


def _integers(column: Any, name: str, file: Path) -> Labels:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    largest = pc.max(column).as_py() if len(column) else None
    if largest is not None and largest >= 2**62:
        constraint = f"labels up to {largest} in {len(column)} rows of {printable(file.name)}"
        raise DataError(explain("data.label_column", name, constraint, _REMEDY))
    filled = pc.fill_null(column, pa.scalar(0, column.type)).to_numpy(zero_copy_only=False) if len(column) else []
    values = np.asarray(filled, np.int64)
    missing = pc.is_null(column).to_numpy(zero_copy_only=False) if len(column) else np.zeros(0, bool)
    return np.where(missing, NO_LABEL, values)


def _declared(metadata: dict[bytes, bytes] | None, name: str) -> dict[str, object]:
    """What Hugging Face's metadata say of the column; they are optional, and so is each part of them."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][name]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return feature if isinstance(feature, dict) else {}


def _declared_count(metadata: dict[bytes, bytes] | None, name: str) -> int:
    """Number of classes that the metadata state; 0 where they state none that could be."""
    count = _declared(metadata, name).get("num_classes")
    return count if isinstance(count, int) and 0 < count <= _MOST else 0


def _listed_names(metadata: dict[bytes, bytes] | None, name: str, file: Path) -> tuple[str, ...] | None:
    """The names that the metadata list for the column; None where they list none."""
    listed = _declared(metadata, name).get("names")
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        constraint = f"the list of class names in the metadata of {printable(file.name)} is damaged"
        raise DataError(explain("data.label_column", name, constraint, "write the file again"))
    return tuple(text.strip() for text in listed)


def _quoted(names: Sequence[str] | None) -> str:
    return first_of((repr(name) for name in names or ()), len(names or ()), 5)
