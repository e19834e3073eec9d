# SPDX-License-Identifier: Apache-2.0
"""The answer bank: every paid-for (image, pseudo-label, answers) triple, on disk, never asked twice.

Layout of the folder:

    journal.jsonl     what is committed; one line an event, with a checksum, written only after its data were synced
    images.u8         [rows, C, H, W] uint8, appended
    pseudo.i64        [rows] the y each image was made for (-1: for none)
    origins.u8        [rows] where each image comes from, see `origins.py`; not in banks of earlier versions
    answers-<i>.f32   [rows, K_i] decoded answers of silo i in its own columns, written at the rows it answered
    targets.f32       [rows, K] aggregated soft targets; derived, rewritten at will

The folder and its files are its owner's alone (modes 0700 and 0600), also those of a run from before they were.

A crash at any point loses at most what was not yet journalled; data beyond the journal are cut off when the bank is
opened. In memory: the journal's index, one answered-flag per row and silo, nothing that grows with the images.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import BankError, explain
from fedcpsc.files import owner_only, private_folder
from fedcpsc.label_sets import LabelSets
from fedcpsc.runs.bank_index import (
    IMAGES,
    ORIGINS,
    PSEUDO_LABELS,
    TARGETS,
    BankIndex,
    Floats,
    damaged,
)
from fedcpsc.runs.bank_journal import Batch, replay
from fedcpsc.runs.bank_sums import SUM, event_sum
from fedcpsc.runs.journal_head import (
    JournalHead,
    journal_head,
    label_sets_of_head,
    label_sets_to_head,
    origins_of_head,
)
from fedcpsc.runs.layout import JOURNAL_FILE
from fedcpsc.runs.origins import BASIC_ORIGINS, Codes, check_origins, origins_of

__all__ = ["AnswerBank"]


class AnswerBank(BankIndex):
    """Opens the bank in `folder`, or makes it.

    Args:
        folder: folder of the bank; created where missing.
        image_shape: (C, H, W).
        classes: K.
        silos: names of the silos, in the order of `answers`.
        label_sets: what the columns of each silo's answers mean; None: the K classes, at every silo.
        excluded: names of silos whose answers are left out where the bank holds any (`aggregation.exclude`).
        origins: names of the images' origins by code, as `origin_table` gives them; a bank that is there keeps its own.

    Raises:
        BankError: where the folder holds a bank of another shape, or of silos that named other classes, is damaged, or
            cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        image_shape: tuple[int, int, int],
        classes: int,
        silos: Sequence[str],
        label_sets: LabelSets | None = None,
        excluded: Collection[str] = (),
        origins: Sequence[str] = BASIC_ORIGINS,
    ) -> None:
        super().__init__(folder, image_shape, classes, silos, label_sets=label_sets, origins=check_origins(origins))
        self._by_query: dict[str, Batch] = {}
        self._journal_path = folder / JOURNAL_FILE
        try:
            private_folder(folder)  # silos' answers: for whoever paid for them alone
        except OSError as error:
            raise _cannot_write(folder, error) from error
        head = journal_head(image_shape, classes, self.silos, self.label_sets, self.origin_names)
        self.nonce = self._recover(head, excluded)
        self._mapped: dict[str, npt.NDArray[Any]] = {}
        self._targets_set: dict[
            int, tuple[int, slice]
        ] = {}  # by first row: when, as a count of settings, and which rows
        self._moment = 0

    # Reading ---------------------------------------------------------------------------------------------------------

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """uint8 [rows, C, H, W], memory-mapped."""
        return self._map(IMAGES, np.uint8, self.image_shape)

    @property
    def pseudo_labels(self) -> npt.NDArray[np.int64]:
        """int64 [rows], memory-mapped; -1 for images that were made for no class."""
        return self._map(PSEUDO_LABELS, np.int64, ())

    @property
    def origins(self) -> Codes:
        """uint8 [rows], codes of `origin_names`; memory-mapped where the bank notes them."""
        return self._map(ORIGINS, np.uint8, ()) if self.notes_origins else origins_of(self.pseudo_labels)

    @property
    def targets(self) -> Floats:
        """float32 [rows, K], memory-mapped; rows without any answer hold zeros."""
        return self._map(TARGETS, np.float32, (self.classes,))

    def targets_set_since(self, moment: int) -> tuple[list[slice], int]:
        """Rows whose targets were set after a moment, and the moment that is now: for copies of the targets.

        Args:
            moment: number that an earlier call gave; 0: when the bank was opened.
        """
        return [rows for when, rows in self._targets_set.values() if when > moment], self._moment

    def batch_of(self, query_id: str) -> Batch | None:
        """The batch a query id belongs to."""
        return self._by_query.get(query_id)

    # Writing ---------------------------------------------------------------------------------------------------------

    def add_batch(
        self,
        round_index: int,
        images: npt.NDArray[np.uint8],
        pseudo_labels: npt.NDArray[np.int64],
        origins: Codes | None = None,
    ) -> Batch:
        """Commits images before they are asked about; their query id is fixed by bank, round and row.

        Args:
            round_index: number of the round that they are for.
            images: images, uint8 [n, C, H, W].
            pseudo_labels: classes that they were made for, int64 [n]; -1 for none.
            origins: codes of `origin_names`, uint8 [n]; None: those that follow from the pseudo-labels.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            got = f"{images.dtype}{list(images.shape)}"
            raise BankError(explain("images", got, f"must be uint8 [N, {self.image_shape}]", "check the synthesis"))
        pseudo_labels = pseudo_labels.astype(np.int64)
        origins = origins_of(pseudo_labels) if origins is None else origins
        if origins.dtype != np.uint8 or origins.shape != images.shape[:1] or (origins >= len(self.origin_names)).any():
            got, constraint = f"{origins.dtype}{list(origins.shape)}", f"must be uint8 [{len(images)}], each a code"
            raise BankError(
                explain("origins", got, f"{constraint} below {len(self.origin_names)}", "check the synthesis")
            )
        first = self.rows
        query_id = sha256(f"{self.nonce}/{round_index}/{first}".encode()).hexdigest()[:32]
        self._write(IMAGES, first, images)
        self._write(PSEUDO_LABELS, first, pseudo_labels)
        if self.notes_origins:
            self._write(ORIGINS, first, origins)
        self._write(TARGETS, first, np.zeros((len(images), self.classes), np.float32))
        batch = Batch(query_id, round_index, first, len(images))
        event = {"batch": query_id, "round": round_index, "first": first, "count": len(images)}
        self._commit(event, images, pseudo_labels, *([origins] if self.notes_origins else []))
        self.batches.append(batch)
        self._by_query[query_id] = batch
        return batch

    def add_answers(self, query_id: str, silo: str, probabilities: Floats, rows: slice | None = None) -> bool:
        """Commits one silo's decoded answers to one batch, or to a part of it; False where they are there already.

        Args:
            query_id: id of the batch.
            probabilities: decoded answers in the silo's own columns, float32 [n, its columns].
            rows: rows of the bank that they answer, n of the batch's; None: all of the batch.
        """
        batch = self._by_query.get(query_id)
        if batch is None or silo not in self._index:
            known = f"{len(self.batches)} queries of {len(self.silos)} silos"
            raise BankError(explain("answer", (query_id, silo), f"is to no query of this bank ({known})", "drop it"))
        part = batch.rows if rows is None else rows
        if not any(hole.start <= part.start and part.stop <= hole.stop for hole in batch.missing_of(silo)):
            return False
        name, width = self._columns[silo]
        wanted = (part.stop - part.start, width)
        if probabilities.shape != wanted or not np.isfinite(probabilities).all():
            constraint = f"must be finite {list(wanted)}"
            raise BankError(explain("probabilities", probabilities.shape, constraint, "check the silo"))
        answers = probabilities.astype(np.float32)
        self._write(name, part.start, answers)
        event: dict[str, object] = {"answered": query_id, "silo": silo}
        if part != batch.rows:
            event = {"part": query_id, "silo": silo, "first": part.start, "count": part.stop - part.start}
        self._commit(event, answers)
        batch.add_part(silo, part)
        return True

    def set_targets(self, batch: Batch, targets: Floats) -> None:
        """Stores a batch's aggregated targets [n, K]; derived from the answers, so not journalled."""
        self._write(TARGETS, batch.first, targets.astype(np.float32), sync=False)
        self._moment += 1
        self._targets_set[batch.first] = self._moment, batch.rows

    # Inside ----------------------------------------------------------------------------------------------------------

    def _recover(self, head: JournalHead, excluded: Collection[str]) -> str:
        """Replays the journal; returns the bank's nonce."""
        try:
            text = self._journal_path.read_bytes() if self._journal_path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            if not whole and (self.folder / IMAGES).exists():
                raise damaged(self._journal_path, "it is empty, though images were banked")
            if len(whole) != len(text):  # a crash in the middle of the last line
                os.truncate(self._journal_path, len(whole))
        except OSError as error:
            raise _cannot_write(self._journal_path, error) from error
        if not whole:
            nonce = uuid.uuid4().hex
            self._commit({**head, "nonce": nonce})
            return nonce
        found, self.batches = replay(self._journal_path, whole)
        if set(excluded) & set(found["silos"]):
            self._leave_out_of(found, excluded)
        nonce = str(found.pop("nonce", ""))
        try:  # the bank's own table is kept, whatever the run would begin with
            self._note_origins(origins_of_head(found))
        except (TypeError, ValueError) as error:
            raise damaged(self._journal_path, repr(error)) from error
        for either in (found, head):
            either.pop("origins", None)
        if "label_sets" not in found and self.label_sets.alike:  # begun by silos that named no classes yet
            head.pop("label_sets", None)
        if found.get("label_sets") != head.get("label_sets"):
            constraint = "its silos had other classes, or other names for them, than those that have joined"
            remedy = "resume with silos as the run began with; or use a new run name"
            raise BankError(explain("bank", str(self.folder), constraint, remedy))
        if found != head:
            remedy = "use a new run name, or the configuration this run began with"
            raise BankError(explain("bank", found, f"was made for other silos or images than {head}", remedy))
        self._by_query = {batch.query_id: batch for batch in self.batches}
        return nonce

    def _leave_out_of(self, found: JournalHead, excluded: Collection[str]) -> None:
        """Takes excluded silos out of a journal's head and batches; those that remain keep their files."""
        try:
            silos, classes = found["silos"], int(found["classes"])
            sets = label_sets_of_head(found, classes, len(silos))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._journal_path, repr(error)) from error
        before = BankIndex(self.folder, self.image_shape, classes, silos, self.batches, sets)
        before.leave_out(excluded)
        self._columns = before._columns
        found["silos"] = before.silos
        if "label_sets" in found and (kept := label_sets_to_head(before.label_sets)) is not None:
            found["label_sets"] = kept
        else:
            found.pop("label_sets", None)

    def _map(self, name: str, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        wanted = (self.rows, *shape)
        mapped = self._mapped.get(name)
        if mapped is None or mapped.shape != wanted:
            if self.rows == 0:
                return np.zeros(wanted, dtype)
            needed = int(np.prod(wanted)) * np.dtype(dtype).itemsize
            path = self.folder / name
            if not path.exists() or path.stat().st_size < needed:
                with open(
                    path, "ab", opener=owner_only
                ) as file:  # rows that this silo has not answered yet read as zeros
                    file.truncate(needed)
            mapped = np.memmap(path, dtype, "r+", shape=wanted)
            self._mapped[name] = mapped
        return mapped

    def _write(self, name: str, first: int, values: npt.NDArray[Any], *, sync: bool = True) -> None:
        path = self.folder / name
        try:
            with open(path, "r+b" if path.exists() else "w+b", opener=owner_only) as file:
                row_bytes = values.nbytes // max(len(values), 1)
                file.seek(first * row_bytes)
                file.write(np.ascontiguousarray(values).tobytes())
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _commit(self, event: Mapping[str, object], *data: npt.NDArray[Any]) -> None:
        """Appends a line to the journal, with the sum of itself and of the data that it commits."""
        total = event_sum(event, (np.ascontiguousarray(values).tobytes() for values in data))
        try:
            with open(self._journal_path, "ab", opener=owner_only) as file:
                file.write(json.dumps({**event, SUM: total}).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot_write(self._journal_path, error) from error


def _cannot_write(path: Path, error: OSError) -> BankError:
    remedy = "free space or fix the permissions, then resume: what was journalled is kept"
    return BankError(explain("bank", str(path), f"cannot be written ({error.strerror})", remedy))
