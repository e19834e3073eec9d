# SPDX-License-Identifier: Apache-2.0
"""Rows written as parquet files in the form of the Hugging Face hub, which `datasets.load_dataset` opens.

The columns are those of `COLUMNS`, and one of answers for each silo, empty (null) where it gave none. What they mean to
the hub's library stands in each file's head: `image` is a picture, `label` one of named classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fedcpsc.answer_set.facts import AnswerSetFacts, SharedFile, file_hash
from fedcpsc.answer_set.pngs import MODES, to_png
from fedcpsc.answer_set.rows import AnswerRows, Floats, cut, shard_count
from fedcpsc.errors import ConfigError, explain

__all__ = ["COLUMNS", "LARGEST_FILE", "check_channels", "column_of", "features", "write_parquet"]

LARGEST_FILE: Final = 400_000_000
"""Most bytes of a file of several rows; the hub asks for less than 500 MB."""

COLUMNS: Final = ("image", "target", "label", "pseudo_label", "round", "origin")
_ANSWERS = "answers_"


def column_of(silo: str) -> str:
    """Name of the column of a silo's answers."""
    return _ANSWERS + silo


def check_channels(image_shape: tuple[int, int, int]) -> None:
    """Does nothing where images of this shape can be pictures in a parquet file.

    Raises:
        ConfigError: PNG has no form for so many channels.
    """
    if image_shape[0] not in MODES:
        constraint = f"images of {image_shape[0]} channels are no pictures, of which PNG has 1, 3 or 4"
        raise ConfigError(explain("--format", "parquet", constraint, "use --format safetensors"))


def features(facts: AnswerSetFacts) -> dict[str, dict[str, Any]]:
    """What each column is, by its name and in its order, as `datasets.Features` writes it."""

    def floats(length: int) -> dict[str, Any]:
        return {"feature": {"dtype": "float32", "_type": "Value"}, "length": length, "_type": "Sequence"}

    names = facts.class_names or tuple(map(str, range(facts.classes)))
    own = {silo.column: floats(silo.width) for silo in facts.silos if silo.column is not None}
    return {
        "image": {"_type": "Image"},
        **own,
        "target": floats(facts.classes),
        "label": {"names": list(names), "_type": "ClassLabel"},
        "pseudo_label": {"dtype": "int64", "_type": "Value"},
        "round": {"dtype": "int64", "_type": "Value"},
        "origin": {"dtype": "string", "_type": "Value"},
    }


def write_parquet(folder: Path, facts: AnswerSetFacts, rows: Iterator[AnswerRows]) -> tuple[SharedFile, ...]:
    """Writes the rows into files below the folder; some are held in memory at a time, never a whole file.

    Args:
        folder: folder of the data set.
        facts: what the data set is, without its files.
        rows: all of its rows, in their order.

    Raises:
        OSError: a file cannot be written.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - slow to import, and only this needs it

    schema = _schema(facts)
    count, each = shard_count(facts, LARGEST_FILE)
    written: list[SharedFile] = []
    (folder / "data").mkdir()
    for number, parts in groupby(cut(rows, each), key=lambda part: part[0]):
        name = f"data/train-{number:05}-of-{count:05}.parquet"
        there = 0
        with pq.ParquetWriter(folder / name, schema) as file:
            for _, part in parts:
                file.write_table(_table(part, facts, schema))
                there += len(part)
        written.append(SharedFile(name=name, rows=there, sha256=file_hash(folder / name)))
    return tuple(written)


def _schema(facts: AnswerSetFacts) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    def kind(feature: dict[str, Any]) -> Any:
        if feature["_type"] == "Image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        if feature["_type"] == "Sequence":
            return pa.list_(pa.float32(), feature["length"])
        return pa.string() if feature.get("dtype") == "string" else pa.int64()

    found = features(facts)
    metadata = {"huggingface": json.dumps({"info": {"features": found}})}
    return pa.schema([(name, kind(feature)) for name, feature in found.items()], metadata=metadata)


def _table(rows: AnswerRows, facts: AnswerSetFacts, schema: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    def floats(values: Floats, given: npt.NDArray[np.bool_] | None = None) -> Any:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32())
        empty = None if given is None else pa.array(~given)
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=empty)

    words = list(facts.origins)
    encoded = pa.array([to_png(image) for image in rows.images], pa.binary())
    own = {
        silo.column: floats(answers, given)
        for silo, answers, given in zip(facts.silos, rows.answers, rows.given, strict=False)
        if silo.column is not None
    }
    columns = {
        "image": pa.StructArray.from_arrays([encoded, pa.nulls(len(rows), pa.string())], ["bytes", "path"]),
        **own,
        "target": floats(rows.targets),
        "label": pa.array(rows.targets.argmax(1), pa.int64()),
        "pseudo_label": pa.array(rows.pseudo_labels, pa.int64(), mask=rows.pseudo_labels < 0),
        "round": pa.array(rows.rounds, pa.int64()),
        "origin": pa.array([words[origin] for origin in rows.origins], pa.string()),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)
