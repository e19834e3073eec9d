# SPDX-License-Identifier: Apache-2.0
"""Rows read back from parquet files: from whoever may have written them, so every type and length is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.answer_set.facts import AnswerSetFacts
from fedcpsc.answer_set.parquet_writer import features
from fedcpsc.answer_set.pngs import from_png
from fedcpsc.answer_set.rows import AnswerRows, Floats, rows_at_once
from fedcpsc.errors import BankError, explain
from fedcpsc.printable import printable

__all__ = ["read_parquet"]

_REMEDY = "write it again with fedcpsc bank export"


def read_parquet(path: Path, facts: AnswerSetFacts) -> Iterator[tuple[int, AnswerRows]]:
    """The rows of a file, and the number of the first of them in it; what the values may be is not looked at.

    Args:
        path: path of the file.
        facts: what the data set says of its rows.

    Raises:
        BankError: it cannot be read, lacks a column or has one of another type, or a row holds no image or no numbers
            of the right length; with its number.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    done = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(file.schema_arrow, facts, path)
            wanted = [name for name in features(facts) if name != "label"]
            for batch in file.iter_batches(rows_at_once(facts), columns=wanted, use_threads=False):
                batch.validate(full=True)  # damage that no reader has noticed would end the process later
                yield done, _Batch(batch, facts, path, done).rows()
                done += len(batch)
    except (OSError, ValueError, KeyError, OverflowError, MemoryError, pa.ArrowException) as error:
        reason = printable(str(error))[:200]
        raise BankError(explain("answers", str(path), f"cannot be read ({reason})", "restore the file")) from error


def _check_schema(schema: Any, facts: AnswerSetFacts, path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415

    for name, feature in features(facts).items():
        if name == "label":  # follows from the target
            continue
        if schema.names.count(name) != 1:
            constraint = f"there must be one column of this name in {path.name}, not {schema.names.count(name)}"
            raise BankError(explain("column", name, constraint, _REMEDY))
        kind = schema.field(name).type
        element = kind.value_type if pa.types.is_dictionary(kind) else kind
        if feature["_type"] == "Image":
            good = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            good = good and _is_binary(kind.field(kind.get_field_index("bytes")).type)
            constraint = "must hold pictures as {bytes, path}, bytes embedded"
        elif feature["_type"] == "Sequence":
            lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            good = lists and kind.value_type == pa.float32()
            constraint = f"must hold lists of {feature['length']} float32"
        elif feature.get("dtype") == "string":
            good, constraint = pa.types.is_string(element) or pa.types.is_large_string(element), "must hold text"
        else:
            good, constraint = pa.types.is_integer(kind), "must hold whole numbers"
        if not good:
            shown = printable(str(kind))[:80]
            raise BankError(explain("column", name, f"{constraint}, and is {shown} in {path.name}", _REMEDY))


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class _Batch:
    """Some rows of a file, as pyarrow read them.

    Args:
        batch: rows.
        facts: what the data set says of its rows.
        path: path of the file.
        first: number of the first row in the file.
    """

    def __init__(self, batch: Any, facts: AnswerSetFacts, path: Path, first: int) -> None:
        self._batch, self._facts, self._path, self._first = batch, facts, path, first

    def rows(self) -> AnswerRows:
        """The same as arrays."""
        facts = self._facts
        own = [self._floats(silo.column, silo.width, gaps=True) for silo in facts.silos if silo.column is not None]
        return AnswerRows(
            images=self._images(),
            rounds=self._whole("round"),
            pseudo_labels=self._whole("pseudo_label", missing=-1),
            origins=self._origins(),
            targets=self._floats("target", facts.classes)[0],
            answers=tuple(values for values, _ in own),
            given=np.array([given for _, given in own], bool).reshape(len(own), len(self._batch)),
        )

    def _fault(self, name: str, value: object, row: int, constraint: str) -> BankError:
        where = f"{constraint} ({self._path.name}, row {self._first + row})"
        return BankError(explain(name, value, where, f"{_REMEDY}, or remove the row"))

    def _present(self, name: str, column: Any) -> None:
        if column.null_count:
            row = int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
            raise self._fault(name, None, row, "must not be missing")

    def _whole(self, name: str, missing: int | None = None) -> npt.NDArray[np.int64]:
        column = self._batch.column(name)
        if missing is None:
            self._present(name, column)
        values: npt.NDArray[np.int64] = column.cast("int64").fill_null(missing or 0).to_numpy(zero_copy_only=False)
        return values

    def _origins(self) -> npt.NDArray[np.int64]:
        column, place = self._batch.column("origin"), {name: k for k, name in enumerate(self._facts.origins)}
        self._present("origin", column)
        words = column.to_pylist()
        for row, word in enumerate(words):
            if word not in place:
                raise self._fault("origin", printable(word)[:80], row, f"must be one of {', '.join(place)}")
        return np.array([place[word] for word in words], np.int64)

    def _images(self) -> npt.NDArray[np.uint8]:
        column = self._batch.column("image")
        self._present("image", column)
        images = np.empty((len(column), *self._facts.image_shape), np.uint8)
        for row, data in enumerate(column.field(column.type.get_field_index("bytes"))):
            if not data.is_valid:
                raise self._fault("image", None, row, "its bytes must be in the file")
            try:
                images[row] = from_png(data.as_py(), self._facts.image_shape)
            except ValueError as error:
                raise self._fault("image", f"{len(data.as_py()):,} bytes", row, str(error)) from error
        return images

    def _floats(self, name: str, width: int, *, gaps: bool = False) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Lists as an array [n, width], zero where one is missing; and which are there, bool [n]."""
        import pyarrow.compute as pc  # noqa: PLC0415

        column = self._batch.column(name)
        if not gaps:
            self._present(name, column)
        given: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
        there = column.drop_null()
        rows = given.nonzero()[0]
        lengths = pc.list_value_length(there).to_numpy(zero_copy_only=False)
        if (lengths != width).any():
            wrong = int((lengths != width).argmax())
            raise self._fault(name, f"{lengths[wrong]} numbers", int(rows[wrong]), f"must be {width}")
        flat = there.flatten()
        if flat.null_count:
            gap = int(np.argmin(flat.is_valid().to_numpy(zero_copy_only=False)))
            raise self._fault(name, None, int(rows[gap // width]), "its numbers must not be missing")
        values = np.zeros((len(column), width), np.float32)
        values[given] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        return values, given
