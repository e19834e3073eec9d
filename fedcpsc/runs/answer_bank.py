"""The answer bank: every paid-for (image, pseudo-label, answers) triple, on disk, never asked twice.

Layout of the folder:

    journal.jsonl     what is committed; one line an event, each written only after its data were synced
    images.u8         [rows, C, H, W] uint8, appended
    pseudo.i64        [rows] the y each image was made for (-1: from the prior)
    answers-<i>.f32   [rows, K] decoded answers of silo i, written at the rows it answered
    targets.f32       [rows, K] aggregated soft targets; derived, rewritten at will

A crash at any point loses at most what was not yet journalled; data beyond the journal are cut off when the bank is
opened. In memory: the journal's index, one answered-flag per row and silo, nothing that grows with the images.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import BankError, explain

__all__ = ["AnswerBank", "Batch", "replay"]

Floats = npt.NDArray[np.float32]

_PIECE = 2**22  # probabilities that are looked at together, 16 MiB


@dataclass
class Batch:
    """One query's rows in the bank.

    Attributes:
        query_id: what the silos know the batch by.
        round: in which it was made, from 0.
        first, count: rows [first, first + count).
        answered: silos whose answers are banked.
    """

    query_id: str
    round: int
    first: int
    count: int
    answered: set[str] = field(default_factory=set)

    @property
    def rows(self) -> slice:
        """The batch's rows."""
        return slice(self.first, self.first + self.count)


class AnswerBank:
    """Opens the bank in `folder`, or makes it.

    Args:
        folder: created where missing.
        image_shape: (C, H, W).
        classes: K.
        silos: names; their order is the order of `answers`.

    Raises:
        BankError: where the folder holds a bank of another shape, is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, image_shape: tuple[int, int, int], classes: int, silos: Sequence[str]) -> None:
        self.folder = folder
        self.image_shape = image_shape
        self.classes = classes
        self.silos = list(silos)
        self._index = {silo: index for index, silo in enumerate(self.silos)}
        self.batches: list[Batch] = []
        self._by_query: dict[str, Batch] = {}
        self._journal_path = folder / "journal.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        head = {"format": 1, "image_shape": list(image_shape), "classes": classes, "silos": self.silos}
        self.nonce = self._recover(head)
        self._mapped: dict[str, npt.NDArray[Any]] = {}

    # Reading ---------------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Images in the bank, answered or not."""
        return self.batches[-1].first + self.batches[-1].count if self.batches else 0

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """uint8 [rows, C, H, W], memory-mapped."""
        return self._map("images.u8", np.uint8, self.image_shape)

    @property
    def pseudo_labels(self) -> npt.NDArray[np.int64]:
        """int64 [rows], memory-mapped; -1 for images of the prior."""
        return self._map("pseudo.i64", np.int64, ())

    @property
    def targets(self) -> Floats:
        """float32 [rows, K], memory-mapped; rows without any answer hold zeros."""
        return self._map("targets.f32", np.float32, (self.classes,))

    def answers(self, batch: Batch, rows: slice | None = None) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Decoded answers to a batch float32 [S, n, K], zero where none; and which silos gave one: bool [S, n].

        Args:
            rows: of the bank, inside the batch; None: all of them.

        Raises:
            BankError: answers that the journal tells of are not on the disk.
        """
        wanted = batch.rows if rows is None else rows
        count = wanted.stop - wanted.start
        dense = np.zeros((len(self.silos), count, self.classes), np.float32)
        given = np.zeros((len(self.silos), count), bool)
        for name in batch.answered:
            index = self._index[name]
            dense[index] = self._read(f"answers-{index}.f32", wanted.start, dense[index].shape)
            given[index] = True
        return dense, given

    def pieces(self, batch: Batch) -> Iterator[tuple[slice, Floats, npt.NDArray[np.bool_]]]:
        """The same in parts that stay small however many silos there are: rows of the bank, and their `answers`."""
        step = max(1, _PIECE // (len(self.silos) * self.classes))
        for first in range(batch.first, batch.first + batch.count, step):
            rows = slice(first, min(first + step, batch.first + batch.count))
            yield rows, *self.answers(batch, rows)

    def answered_rows(self, rounds: range | None = None) -> npt.NDArray[np.int64]:
        """Rows that have at least one silo's answer (optionally only of some rounds), ascending."""
        chosen = [b for b in self.batches if b.answered and (rounds is None or b.round in rounds)]
        if not chosen:
            return np.zeros(0, np.int64)
        return np.concatenate([np.arange(b.first, b.first + b.count) for b in chosen])

    def round_batches(self, round_index: int) -> list[Batch]:
        """The batches made in one round."""
        return [batch for batch in self.batches if batch.round == round_index]

    def batches_before(self, before: int | None) -> list[Batch]:
        """The batches made in rounds before `before`; None: all."""
        return [batch for batch in self.batches if before is None or batch.round < before]

    def batch_of(self, query_id: str) -> Batch | None:
        """The batch a query id belongs to."""
        return self._by_query.get(query_id)

    def answers_of(self, silo: str) -> int:
        """Images of this bank that the silo has answered."""
        return sum(batch.count for batch in self.batches if silo in batch.answered)

    # Writing ---------------------------------------------------------------------------------------------------------

    def add_batch(self, round_index: int, images: npt.NDArray[np.uint8], pseudo_labels: npt.NDArray[np.int64]) -> Batch:
        """Commits images before they are asked about; their query id is fixed by bank, round and row."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            got = f"{images.dtype}{list(images.shape)}"
            raise BankError(explain("images", got, f"must be uint8 [N, {self.image_shape}]", "check the synthesis"))
        first = self.rows
        query_id = sha256(f"{self.nonce}/{round_index}/{first}".encode()).hexdigest()[:32]
        self._write("images.u8", first, images)
        self._write("pseudo.i64", first, pseudo_labels.astype(np.int64))
        self._write("targets.f32", first, np.zeros((len(images), self.classes), np.float32))
        batch = Batch(query_id, round_index, first, len(images))
        self._commit({"batch": query_id, "round": round_index, "first": first, "count": len(images)})
        self.batches.append(batch)
        self._by_query[query_id] = batch
        return batch

    def add_answers(self, query_id: str, silo: str, probabilities: Floats) -> bool:
        """Commits one silo's decoded answers to one batch; False where they are there already.

        Args:
            probabilities: float32 [count, K].
        """
        batch = self._by_query.get(query_id)
        if batch is None or silo not in self._index:
            known = f"{len(self.batches)} queries of {len(self.silos)} silos"
            raise BankError(explain("answer", (query_id, silo), f"is to no query of this bank ({known})", "drop it"))
        if silo in batch.answered:
            return False
        if probabilities.shape != (batch.count, self.classes) or not np.isfinite(probabilities).all():
            wanted = f"finite [{batch.count}, {self.classes}]"
            raise BankError(explain("probabilities", probabilities.shape, f"must be {wanted}", "check the silo"))
        self._write(f"answers-{self._index[silo]}.f32", batch.first, probabilities.astype(np.float32))
        self._commit({"answered": query_id, "silo": silo})
        batch.answered.add(silo)
        return True

    def set_targets(self, batch: Batch, targets: Floats) -> None:
        """Stores a batch's aggregated targets [n, K]; derived from the answers, so not journalled."""
        self._write("targets.f32", batch.first, targets.astype(np.float32), sync=False)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _recover(self, head: dict[str, Any]) -> str:
        """Replays the journal; returns the bank's nonce."""
        text = self._journal_path.read_bytes() if self._journal_path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) != len(text):  # a crash in the middle of the last line
            os.truncate(self._journal_path, len(whole))
        if not whole:
            nonce = uuid.uuid4().hex
            self._commit({**head, "nonce": nonce})
            return nonce
        found, self.batches = replay(self._journal_path, whole)
        nonce = str(found.pop("nonce", ""))
        if found != head:
            remedy = "use a new run name, or the configuration this run began with"
            raise BankError(explain("bank", found, f"was made for other silos or images than {head}", remedy))
        self._by_query = {batch.query_id: batch for batch in self.batches}
        return nonce

    def _map(self, name: str, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        wanted = (self.rows, *shape)
        mapped = self._mapped.get(name)
        if mapped is None or mapped.shape != wanted:
            if self.rows == 0:
                return np.zeros(wanted, dtype)
            needed = int(np.prod(wanted)) * np.dtype(dtype).itemsize
            path = self.folder / name
            if not path.exists() or path.stat().st_size < needed:
                with path.open("ab") as file:  # rows that this silo has not answered yet read as zeros
                    file.truncate(needed)
            mapped = np.memmap(path, dtype, "r+", shape=wanted)
            self._mapped[name] = mapped
        return mapped

    def _read(self, name: str, first: int, shape: tuple[int, int]) -> Floats:
        """Rows from `first` on. Not mapped: a map keeps its file open, and silos may outnumber the files allowed."""
        path, wanted = self.folder / name, np.dtype(np.float32).itemsize * shape[0] * shape[1]
        try:
            with path.open("rb") as file:
                file.seek(wanted // shape[0] * first)
                found = file.read(wanted)
        except OSError as error:
            raise _damaged(path, str(error.strerror)) from error
        if len(found) != wanted:
            raise _damaged(path, "it is shorter than the journal says")
        return np.frombuffer(found, np.float32).reshape(shape)

    def _write(self, name: str, first: int, values: npt.NDArray[Any], *, sync: bool = True) -> None:
        path = self.folder / name
        try:
            with path.open("r+b" if path.exists() else "w+b") as file:
                row_bytes = values.nbytes // max(len(values), 1)
                file.seek(first * row_bytes)
                file.write(np.ascontiguousarray(values).tobytes())
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _commit(self, event: dict[str, Any]) -> None:
        try:
            with self._journal_path.open("ab") as file:
                file.write(json.dumps(event).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot_write(self._journal_path, error) from error


def replay(path: Path, journal: bytes) -> tuple[dict[str, Any], list[Batch]]:
    """What a journal says: its head, and the batches with their answers.

    Args:
        path: of the journal, for the error alone.
        journal: whole lines.

    Raises:
        BankError: it is damaged.
    """
    try:
        head, *events = [dict(json.loads(line)) for line in journal.splitlines()]
        batches: dict[str, Batch] = {}
        for event in events:
            if "batch" in event:
                batches[event["batch"]] = Batch(event["batch"], event["round"], event["first"], event["count"])
            else:
                batches[event["answered"]].answered.add(event["silo"])
    except (ValueError, KeyError, TypeError) as error:
        remedy = "restore the folder from a backup, or start a new run"
        raise BankError(explain("journal", str(path), f"is damaged ({error!r})", remedy)) from error
    return head, list(batches.values())


def _damaged(path: Path, why: str) -> BankError:
    remedy = "restore the folder from a backup, or start a new run"
    return BankError(explain("bank", str(path), f"cannot be read ({why})", remedy))


def _cannot_write(path: Path, error: OSError) -> BankError:
    remedy = "free space or mend the permissions, then resume: what was journalled is kept"
    return BankError(explain("bank", str(path), f"cannot be written ({error.strerror})", remedy))
