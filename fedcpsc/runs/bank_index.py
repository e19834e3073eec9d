# SPDX-License-Identifier: Apache-2.0
"""What a bank holds, by its journal: the batches, who answered them, and where each answer lies.

`AnswerBank` writes it, `BankView` only looks. Both are a `BankIndex`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from fedcpsc.errors import BankError, explain
from fedcpsc.label_sets import LabelSets
from fedcpsc.late_numpy import np, npt
from fedcpsc.runs.bank_journal import Batch
from fedcpsc.runs.layout import JOURNAL_FILE
from fedcpsc.runs.origins import BASIC_ORIGINS

__all__ = [
    "IMAGES",
    "ORIGINS",
    "PSEUDO_LABELS",
    "TARGETS",
    "BankIndex",
    "Floats",
    "Piece",
    "answers_file",
    "damaged",
]

Floats: TypeAlias = "npt.NDArray[np.float32]"

IMAGES, PSEUDO_LABELS, ORIGINS, TARGETS = "images.u8", "pseudo.i64", "origins.u8", "targets.f32"
_PIECE = 2**22  # probabilities that are looked at together, 16 MiB


class Piece(NamedTuple):
    """Some rows of a batch, and what the S silos answered.

    Attributes:
        rows: rows of the bank.
        answers: decoded answers in the federation's classes, float32 [S, n, K], zero where none.
        given: which silos gave one, bool [S, n].
        mass: sum of each answer: 1, or less by what it says of "none of these", float32 [S, n]; None where no silo can.
    """

    rows: slice
    answers: Floats
    given: npt.NDArray[np.bool_]
    mass: Floats | None


class BankIndex:
    """A bank's batches and answers, to be read.

    Args:
        folder: folder of the bank.
        image_shape: shape of an image, (C, H, W).
        classes: number of the federation's classes K.
        silos: names of the silos, in the order of `answers`.
        batches: batches in the order they were made.
        label_sets: what the columns of each silo's answers mean; None: the K classes, at every silo.
        origins: names of the images' origins by code; None: the bank does not note them, see `origins.py`.

    Attributes:
        notes_origins: whether the bank has a file of origins; where not, they follow from the pseudo-labels.
        origin_names: names of the codes in `origins`, which `AnswerBank` and `BankView` give.
    """

    def __init__(
        self,
        folder: Path,
        image_shape: tuple[int, int, int],
        classes: int,
        silos: Sequence[str],
        batches: Sequence[Batch] = (),
        label_sets: LabelSets | None = None,
        origins: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.image_shape = image_shape
        self.classes = classes
        self.silos = list(silos)
        self.batches = list(batches)
        self.label_sets = label_sets or LabelSets.by_number(classes, len(self.silos))
        self._note_origins(origins)
        self._index = {silo: index for index, silo in enumerate(self.silos)}
        self._columns = {
            silo: (answers_file(index), self.label_sets.widths[index]) for silo, index in self._index.items()
        }

    def _note_origins(self, names: Sequence[str] | None) -> None:
        self.notes_origins = names is not None
        self.origin_names = BASIC_ORIGINS if names is None else tuple(names)

    @property
    def rows(self) -> int:
        """Images in the bank, answered or not."""
        return self.batches[-1].first + self.batches[-1].count if self.batches else 0

    def leave_out(self, excluded: Collection[str]) -> None:
        """Reads on as if these silos had never answered, and were not there; their files stay.

        Args:
            excluded: names of silos; those that the bank does not know are passed over.
        """
        kept = [index for index, silo in enumerate(self.silos) if silo not in excluded]
        sets = self.label_sets
        self.label_sets = replace(
            sets, places=tuple(sets.places[i] for i in kept), none=tuple(sets.none[i] for i in kept)
        )
        self.silos = [self.silos[index] for index in kept]
        self._index = {silo: index for index, silo in enumerate(self.silos)}
        for batch in self.batches:
            batch.answered.difference_update(excluded)
            batch.parts = {silo: parts for silo, parts in batch.parts.items() if silo not in excluded}

    def answers(self, batch: Batch, rows: slice | None = None) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Answers to a batch in the federation's classes, and which silos gave one, as in `Piece`.

        Args:
            rows: rows of the bank, inside the batch; None: all of them.

        Raises:
            BankError: answers that the journal lists are not on the disk.
        """
        piece = self._piece(batch, batch.rows if rows is None else rows)
        return piece.answers, piece.given

    def own_answers(self, silo: str, rows: slice) -> Floats:
        """What a silo answered, decoded, in its own columns: float32 [n, its columns].

        Args:
            silo: name of the silo.
            rows: rows of the bank, all of which it has answered.

        Raises:
            BankError: answers that the journal lists are not on the disk.
        """
        name, width = self._columns[silo]
        return self._read(name, rows.start, (rows.stop - rows.start, width))

    def pieces(self, batch: Batch) -> Iterator[Piece]:
        """The answers to a batch in parts that stay small however many silos there are."""
        step = max(1, _PIECE // (len(self.silos) * self.classes))
        for first in range(batch.first, batch.first + batch.count, step):
            yield self._piece(batch, slice(first, min(first + step, batch.first + batch.count)))

    def _piece(self, batch: Batch, rows: slice) -> Piece:
        count, sets = rows.stop - rows.start, self.label_sets
        dense = np.zeros((len(self.silos), count, self.classes), np.float32)
        given = np.zeros((len(self.silos), count), bool)
        mass = np.ones(given.shape, np.float32) if any(sets.none) else None
        for name in (*batch.answered, *batch.parts):
            index = self._index[name]
            for part in batch.answered_by(name):
                first, stop = max(part.start, rows.start), min(part.stop, rows.stop)
                if first >= stop:
                    continue
                here = slice(first - rows.start, stop - rows.start)
                own = self.own_answers(name, slice(first, stop))
                own_mass = None
                if not sets.alike:
                    own, own_mass = sets.federated(index, own)
                dense[index, here] = own
                given[index, here] = True
                if mass is not None and own_mass is not None:
                    mass[index, here] = own_mass
        return Piece(rows, dense, given, mass)

    def answered_rows(self, rounds: range | None = None) -> npt.NDArray[np.int64]:
        """Rows that have at least one silo's answer (optionally only of some rounds), ascending."""
        chosen = [b for b in self.batches if b.heard and (rounds is None or b.round in rounds)]
        if not chosen:
            return np.zeros(0, np.int64)
        return np.concatenate([_heard_rows(batch) for batch in chosen])

    def round_batches(self, round_index: int) -> list[Batch]:
        """The batches made in one round."""
        return [batch for batch in self.batches if batch.round == round_index]

    def batches_before(self, before: int | None) -> list[Batch]:
        """The batches made in rounds before `before`; None: all."""
        return [batch for batch in self.batches if before is None or batch.round < before]

    def answers_of(self, silo: str, before: int | None = None) -> int:
        """Images of this bank that the silo has answered; of rounds before `before` alone, where that is given."""
        return sum(batch.answers_of(silo) for batch in self.batches_before(before))

    @property
    def group_ends(self) -> tuple[int, ...]:
        """The round after the last of each round group that was asked about, ascending: batches bear its number."""
        return tuple(sorted({batch.round + 1 for batch in self.batches}))

    def check_rows(self) -> None:
        """Looks whether every image, with its pseudo-label, origin and target, is on the disk; reads none.

        Raises:
            BankError: a file is missing or shorter.
        """
        wanted = {IMAGES: math.prod(self.image_shape), PSEUDO_LABELS: 8, TARGETS: 4 * self.classes}  # bytes a row
        if self.notes_origins:
            wanted[ORIGINS] = 1
        for name, row in wanted.items():
            _check_length(self.folder / name, self.rows * row)

    def check_answers(self) -> None:
        """Looks whether every answer of the journal is on the disk; reads none.

        Raises:
            BankError: a silo's file is missing or shorter, or the journal's head does not name the silo.
        """
        ends: dict[str, int] = {}
        for batch in self.batches:
            ends |= {silo: batch.answered_by(silo)[-1].stop for silo in (*batch.answered, *batch.parts)}
        if unknown := ends.keys() - set(self.silos):
            raise damaged(self.folder / JOURNAL_FILE, f"its head does not name {', '.join(sorted(unknown))}")
        for silo, end in ends.items():
            name, width = self._columns[silo]
            _check_length(self.folder / name, 4 * width * end)

    def _read(self, name: str, first: int, shape: tuple[int, int]) -> Floats:
        """Rows from `first` on. Not mapped: a map keeps its file open, and silos may outnumber the files allowed."""
        path, wanted = self.folder / name, np.dtype(np.float32).itemsize * shape[0] * shape[1]
        try:
            with path.open("rb") as file:
                file.seek(wanted // shape[0] * first)
                found = file.read(wanted)
        except OSError as error:
            raise damaged(path, str(error.strerror)) from error
        if len(found) != wanted:
            raise damaged(path, "it is shorter than the journal says")
        return np.frombuffer(found, np.float32).reshape(shape)


def _check_length(path: Path, wanted: int) -> None:
    if wanted and (not path.exists() or path.stat().st_size < wanted):
        raise damaged(path, "it is shorter than the journal says")


def _heard_rows(batch: Batch) -> npt.NDArray[np.int64]:
    """Rows of the batch that any silo has answered, ascending."""
    if batch.answered:
        return np.arange(batch.rows.start, batch.rows.stop)
    heard = np.zeros(batch.count, bool)
    for parts in batch.parts.values():
        for part in parts:
            heard[part.start - batch.first : part.stop - batch.first] = True
    return batch.first + heard.nonzero()[0]


def answers_file(index: int) -> str:
    """Name of the file of one silo's answers; `index` counts the bank's silos from 0."""
    return f"answers-{index}.f32"


def damaged(path: Path, why: str) -> BankError:
    """The error for a file of a bank that does not hold what it should."""
    remedy = "restore the folder from a backup, or start a new run"
    return BankError(explain("bank", str(path), f"cannot be read ({why})", remedy))
