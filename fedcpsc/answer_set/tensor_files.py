# SPDX-License-Identifier: Apache-2.0
"""Rows as safetensors files: arrays under plain names, for whoever computes with them; and back.

image         uint8 [n, C, H, W]
target        float32 [n, K]
label         int64 [n], the target's most probable class
pseudo_label  int64 [n], -1 where an image was made for no class
round         int64 [n]
origin        int64 [n], number of a word of `origins` in answers.json
answers.<s>   float32 [n, its columns], answers of the silo that stands at place s in answers.json, from 0
given.<s>     uint8 [n], 1 where it answered
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedcpsc.answer_set.facts import AnswerSetFacts, SharedFile, file_hash
from fedcpsc.answer_set.rows import AnswerRows, cut, rows_at_once, shard_count
from fedcpsc.errors import BankError, explain
from fedcpsc.printable import printable

__all__ = ["LARGEST_TENSOR_FILE", "read_tensors", "tensor_of", "write_tensors"]

LARGEST_TENSOR_FILE: Final = 200_000_000
"""Most bytes of a file of several rows, which is held in memory while it is written."""

_DTYPES = {"U8": np.uint8, "F32": np.float32, "I64": np.int64}


def tensor_of(place: int) -> str:
    """Name of the array of a silo's answers.

    Args:
        place: place of the silo in answers.json, from 0.
    """
    return f"answers.{place}"


def write_tensors(folder: Path, facts: AnswerSetFacts, rows: Iterator[AnswerRows]) -> tuple[SharedFile, ...]:
    """Writes the rows into files below the folder; one file's are held in memory at a time.

    Args:
        folder: folder of the data set.
        facts: what the data set is, without its files.
        rows: all of its rows, in their order.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.numpy import save_file  # noqa: PLC0415

    count, each = shard_count(facts, LARGEST_TENSOR_FILE)
    written: list[SharedFile] = []
    (folder / "data").mkdir()
    for number, parts in groupby(cut(rows, each), key=lambda part: part[0]):
        name = f"data/answers-{number:05}-of-{count:05}.safetensors"
        whole = AnswerRows.joined([part for _, part in parts])
        save_file(_tensors(whole), folder / name)
        written.append(SharedFile(name=name, rows=len(whole), sha256=file_hash(folder / name)))
    return tuple(written)


def read_tensors(path: Path, facts: AnswerSetFacts) -> Iterator[tuple[int, AnswerRows]]:
    """The rows of a file, and the number of the first of them in it; what the values may be is not looked at.

    Args:
        path: path of the file.
        facts: what the data set says of its rows.

    Raises:
        BankError: it cannot be read, or lacks an array or has one of another type or shape.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    silos = range(len(facts.silos) if facts.with_answers else 0)
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = _shapes(facts)
            slices = {name: _slice(file, name, path) for name in shapes}
            count = slices["image"].get_shape()[0] if slices["image"].get_shape() else 0
            for name, (dtype, shape) in shapes.items():
                found = (slices[name].get_dtype(), slices[name].get_shape())
                if found != (dtype, [count, *shape]):
                    constraint = f"must be {dtype} {[count, *shape]} in {path.name}, and is {found[0]} {found[1]}"
                    raise BankError(explain("array", name, constraint, "write it again with fedcpsc bank export"))
            step = rows_at_once(facts)
            for first in range(0, count, step):
                part = {name: np.asarray(own[first : min(first + step, count)]) for name, own in slices.items()}
                given = np.array([part[f"given.{place}"] != 0 for place in silos], bool)
                yield (
                    first,
                    AnswerRows(
                        images=part["image"],
                        rounds=part["round"],
                        pseudo_labels=part["pseudo_label"],
                        origins=part["origin"],
                        targets=part["target"],
                        answers=tuple(part[tensor_of(place)] for place in silos),
                        given=given.reshape(len(silos), len(part["image"])),
                    ),
                )
    except (OSError, ValueError, SafetensorError) as error:
        reason = printable(str(error))[:200]
        raise BankError(explain("answers", str(path), f"cannot be read ({reason})", "restore the file")) from error


def _tensors(rows: AnswerRows) -> dict[str, np.ndarray[Any, Any]]:
    own = {tensor_of(place): answers for place, answers in enumerate(rows.answers)}
    given = {f"given.{place}": flags.astype(np.uint8) for place, flags in enumerate(rows.given)}
    return {
        "image": np.ascontiguousarray(rows.images),
        "target": rows.targets,
        "label": rows.targets.argmax(1),
        "pseudo_label": rows.pseudo_labels,
        "round": rows.rounds,
        "origin": rows.origins,
        **own,
        **given,
    }


def _shapes(facts: AnswerSetFacts) -> dict[str, tuple[str, list[int]]]:
    """Type and shape, without the number of rows, of each array that is read."""
    shapes: dict[str, tuple[str, list[int]]] = {
        "image": ("U8", list(facts.image_shape)),
        "target": ("F32", [facts.classes]),
        "pseudo_label": ("I64", []),
        "round": ("I64", []),
        "origin": ("I64", []),
    }
    for place, silo in enumerate(facts.silos):
        if silo.column is not None:
            shapes |= {tensor_of(place): ("F32", [silo.width]), f"given.{place}": ("U8", [])}
    return shapes


def _slice(file: Any, name: str, path: Path) -> Any:
    if name not in file.keys():  # noqa: SIM118 - the file is no mapping
        constraint = f"there is no such array in {path.name}"
        raise BankError(explain("array", name, constraint, "write it again with fedcpsc bank export"))
    return file.get_slice(name)
