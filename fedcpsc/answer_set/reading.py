# SPDX-License-Identifier: Apache-2.0
"""A data set of answers, read whole and held against what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fedcpsc.answer_set.facts import AnswerSetFacts, SharedFile, file_hash
from fedcpsc.answer_set.parquet_reader import read_parquet
from fedcpsc.answer_set.rows import AnswerRows, check_rows
from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.answer_set.tensor_files import read_tensors
from fedcpsc.errors import BankError, explain

__all__ = ["read_rows"]

_Reader = Callable[[Path, AnswerSetFacts], Iterator[tuple[int, AnswerRows]]]
_READERS: dict[SetFormat, _Reader] = {SetFormat.PARQUET: read_parquet, SetFormat.SAFETENSORS: read_tensors}


def read_rows(folder: Path, facts: AnswerSetFacts) -> Iterator[AnswerRows]:
    """All rows in their order, some at a time; each may stand in a bank.

    Args:
        folder: folder of the data set.
        facts: what `read_facts` read there.

    Raises:
        BankError: a file is missing, is not the one that was written, or a row does not hold what it must. What came
            before it was right by itself, so that a bank is only whole when no error came.
    """
    before = 0
    for file in facts.files:
        path = folder / file.name
        _check_file(path, file)
        there = 0
        for first, rows in _READERS[facts.format](path, facts):
            check_rows(rows, facts, file.name, first)
            if len(rows) and rows.rounds[0] < before:
                constraint = f"must not fall: sort the rows by round ({file.name}, row {first})"
                raise BankError(explain("round", int(rows.rounds[0]), constraint, "write the data set again"))
            before, there = int(rows.rounds[-1]) if len(rows) else before, there + len(rows)
            yield rows
        if there != file.rows:
            constraint = f"holds {there:,} rows, and must hold {file.rows:,}"
            raise BankError(explain("answers", str(path), constraint, "restore the file, or correct answers.json"))


def _check_file(path: Path, file: SharedFile) -> None:
    try:
        found = file_hash(path)
    except OSError as error:
        constraint = f"cannot be read ({error.strerror})"
        raise BankError(explain("answers", str(path), constraint, "restore the data set's folder")) from error
    if file.sha256 not in (None, found):
        remedy = "restore the file; where you changed it on purpose, set its sha256 in answers.json to null"
        raise BankError(explain("answers", str(path), "is not the file that was written", remedy))
