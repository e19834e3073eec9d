# SPDX-License-Identifier: Apache-2.0
"""Rows of a data set of answers, whatever the format of its files: what they hold, and what they may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcpsc.answer_set.facts import AnswerSetFacts
from fedcpsc.errors import BankError, explain

__all__ = ["AnswerRows", "Floats", "bytes_of_row", "check_rows", "cut", "rows_at_once", "shard_count"]

Floats = npt.NDArray[np.float32]

_SLACK = 1e-3  # by which a distribution's sum may differ from 1: rounding of float32 makes far less
_AT_ONCE = 2**26  # bytes of the rows that are held together
_MOST_AT_ONCE = 1000
_OVERHEAD = 256  # bytes of a row beside its numbers: the head of its picture, lengths, labels
_REMEDY = "write it again with fedcpsc bank export, or remove the row"


@dataclass(frozen=True, eq=False)
class AnswerRows:
    """Some rows, n of them.

    Attributes:
        images: images, uint8 [n, C, H, W].
        rounds: number of the round in which each was made, int64 [n], >= 0.
        pseudo_labels: class that each was made for, int64 [n]; -1 where it was made for none.
        origins: number of each one's origin in the order of `AnswerSetFacts.origins`, int64 [n].
        targets: soft targets, float32 [n, K].
        answers: answers of each silo in its own columns, S arrays float32 [n, its columns], zero where it gave none;
            empty where the data set holds targets alone.
        given: which silos answered, bool [S, n]; [0, n] where the data set holds targets alone.
    """

    images: npt.NDArray[np.uint8]
    rounds: npt.NDArray[np.int64]
    pseudo_labels: npt.NDArray[np.int64]
    origins: npt.NDArray[np.int64]
    targets: Floats
    answers: tuple[Floats, ...]
    given: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> AnswerRows:
        return AnswerRows(
            self.images[rows],
            self.rounds[rows],
            self.pseudo_labels[rows],
            self.origins[rows],
            self.targets[rows],
            tuple(answers[rows] for answers in self.answers),
            self.given[:, rows],
        )

    @classmethod
    def joined(cls, parts: list[AnswerRows]) -> AnswerRows:
        """The rows of all parts, at least one, in their order."""
        return cls(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.rounds for part in parts]),
            np.concatenate([part.pseudo_labels for part in parts]),
            np.concatenate([part.origins for part in parts]),
            np.concatenate([part.targets for part in parts]),
            tuple(np.concatenate(own) for own in zip(*(part.answers for part in parts), strict=True)),
            np.concatenate([part.given for part in parts], axis=1),
        )


def bytes_of_row(facts: AnswerSetFacts) -> int:
    """Most bytes of a row, in memory and in a file."""
    channels, height, width = facts.image_shape
    floats = facts.classes + sum(silo.width for silo in facts.silos if silo.column is not None)
    return channels * height * width + 4 * floats + _OVERHEAD


def rows_at_once(facts: AnswerSetFacts) -> int:
    """Number of rows that are read or written together, >= 1."""
    return max(1, min(_MOST_AT_ONCE, _AT_ONCE // bytes_of_row(facts)))


def shard_count(facts: AnswerSetFacts, largest: int) -> tuple[int, int]:
    """How many files the rows take, and how many rows each of them but the last has.

    Args:
        largest: most bytes of a file, >= 1; a file has at least one row.
    """
    each = max(1, largest // bytes_of_row(facts))
    return -(-facts.rows // each), each


def cut(parts: Iterator[AnswerRows], each: int) -> Iterator[tuple[int, AnswerRows]]:
    """The parts, cut where a file ends, and the number of the file, from 0.

    Args:
        parts: rows in their order.
        each: number of rows of a file, >= 1.
    """
    done = 0
    for part in parts:
        first = 0
        while first < len(part):
            stop = min(len(part), first + each - done % each)
            yield done // each, part[first:stop]
            done, first = done + stop - first, stop


def check_rows(rows: AnswerRows, facts: AnswerSetFacts, place: str, first: int) -> None:
    """Does nothing where the rows may stand in a bank.

    Args:
        rows: rows as they were read.
        facts: what the data set says of them.
        place: name of their file.
        first: number of the first row in that file, from 0.

    Raises:
        BankError: a row does not hold what it must; with its number.
    """

    def check(bad: npt.NDArray[np.bool_], name: str, shown: npt.NDArray[np.generic], constraint: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            value = np.array2string(np.asarray(shown[row]), precision=4, threshold=12)
            raise BankError(explain(name, value, f"{constraint} ({place}, row {first + row})", _REMEDY))

    check(rows.rounds < 0, "round", rows.rounds, "must be >= 0")
    falls = np.zeros(len(rows), bool)
    falls[1:] = rows.rounds[1:] < rows.rounds[:-1]
    check(falls, "round", rows.rounds, "must not fall: sort the rows by round")
    beyond = (rows.pseudo_labels < -1) | (rows.pseudo_labels >= facts.classes)
    check(beyond, "pseudo_label", rows.pseudo_labels, f"must be a class, 0 to {facts.classes - 1}, or missing")
    names = len(facts.origins)
    check((rows.origins < 0) | (rows.origins >= names), "origin", rows.origins, f"must be 0 to {names - 1}")
    check(_no_distribution(rows.targets), "target", rows.targets, "must be numbers in [0, 1] that sum to 1")
    if not facts.with_answers:
        return
    answered = rows.given.sum(0)
    check(answered == 0, "number of answers", answered, "at least one silo must have answered")
    for silo, own, given in zip(facts.silos, rows.answers, rows.given, strict=True):
        bad = given & _no_distribution(own)
        check(bad, f"answers of {silo.name}", own, "must be numbers in [0, 1] that sum to 1")


def _no_distribution(values: Floats) -> npt.NDArray[np.bool_]:
    """Which rows are no distribution, bool [n]; NaN is none."""
    within = (values >= 0).all(1) & (values <= 1 + _SLACK).all(1)
    bad: npt.NDArray[np.bool_] = ~(within & (np.abs(values.sum(1, dtype=np.float64) - 1) <= _SLACK))
    return bad
