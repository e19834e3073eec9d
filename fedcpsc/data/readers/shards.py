# SPDX-License-Identifier: Apache-2.0
"""The parquet files of a split: one, or all shards of one upload."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fedcpsc.data.reading import first_of
from fedcpsc.errors import DataError, explain

__all__ = ["has_files", "split_files"]

_SHARD = re.compile(r".*-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(-[0-9a-f]+)?\.parquet")  # the hub adds a hash


def has_files(root: Path, split: str) -> bool:
    """Whether files of the split `split` lie in `root`."""
    return bool(_candidates(root, split))


def split_files(root: Path, split: str, key: str = "data.path") -> list[Path]:
    """`train.parquet`; or `train-00000-of-00002.parquet` and its fellows; or any `train-*.parquet`, by name.

    Args:
        root: folder of the files.
        split: name of the split.
        key: configuration's key of the folder, for errors.

    Raises:
        DataError: where a shard is missing or is there twice, or the files are of several uploads: shards of several
            counts, a whole file beside shards, or shards beside files that are none.
    """
    files = _candidates(root, split)
    folders = [file.name for file in files if not file.is_file()]
    if folders:
        raise _error(
            key, root, f"{first_of(folders, len(folders), 3)}: is no file", "put the parquet files there themselves"
        )
    whole = [file for file in files if file.name == f"{split}.parquet"]
    pieces = [(file, _SHARD.fullmatch(file.name)) for file in files if file not in whole]
    shards = [(file, int(match["number"]), int(match["count"])) for file, match in pieces if match]
    others = [file for file, match in pieces if not match]
    kinds = [[file.name for file in whole], [file.name for file, _, _ in shards], [file.name for file in others]]
    if sum(map(bool, kinds)) > 1:
        names = " and ".join(first_of(kind, len(kind), 2) for kind in kinds if kind)
        raise _error(
            key, root, f"{names} lie there: the same records may be there twice", "keep the files of one upload"
        )
    counts = sorted({count for _, _, count in shards})
    if len(counts) > 1:
        shown = ", ".join(f"-of-{count:05}" for count in counts[:5])
        constraint = (
            f"shards of {split} of more than one count ({shown}) lie there: the same records may be there twice"
        )
        raise _error(key, root, constraint, "keep the shards of one upload")
    if shards:
        _check_complete(key, root, split, [number for _, number, _ in shards], counts[0])
    return files


def _check_complete(key: str, root: Path, split: str, numbers: list[int], count: int) -> None:
    twice = sorted(number for number, times in Counter(numbers).items() if times > 1)
    beyond = sorted(number for number in set(numbers) if number >= count)
    there = len(set(numbers)) - len(beyond)
    if twice or beyond:
        shown = first_of((f"{number:05}" for number in twice or beyond), len(twice or beyond), 5)
        constraint = f"shard {shown} of {count} of {split} {'is there more than once' if twice else 'cannot be'}"
        raise _error(key, root, constraint, "keep the shards of one upload")
    if there < count:
        missing = (f"{number:05}" for number in range(count) if number not in set(numbers))
        constraint = f"{there} of {count} shards of {split} found; missing: {first_of(missing, count - there, 5)}"
        raise _error(key, root, constraint, "copy the missing shards there")


def _candidates(root: Path, split: str) -> list[Path]:
    single = root / f"{split}.parquet"
    return [*([single] if single.exists() else []), *sorted(root.glob(f"{split}-*.parquet"))]


def _error(key: str, root: Path, constraint: str, remedy: str) -> DataError:
    return DataError(explain(key, str(root), constraint, remedy))
