# SPDX-License-Identifier: Apache-2.0
"""Copies a bank into another run's folder: what it has committed, under a head of the copy's own.

Batches keep the ids by which silos know them, so that one that owes an answer still is not charged twice. The copy lies
in `bank.partial` until it is whole and on the disk; then it is renamed, and so is there whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedcpsc.errors import BankError, explain
from fedcpsc.files import copy_bytes, owner_only, private_folder, sync, write_whole
from fedcpsc.label_sets import LabelSets
from fedcpsc.runs.bank_index import TARGETS, answers_file
from fedcpsc.runs.bank_sums import SUM, event_sum, read_parts
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.journal_head import journal_head
from fedcpsc.runs.layout import JOURNAL_FILE
from fedcpsc.runs.lineage import Lineage, write_lineage
from fedcpsc.runs.origins import MOST_ORIGINS, origin_table

__all__ = ["copy_bank"]


def copy_bank(
    source: BankView,
    folder: Path,
    silos: Sequence[str],
    label_sets: LabelSets,
    lineage: Lineage,
    renamed: Mapping[str, str] | None = None,
    priors: Iterable[str] = (),
) -> None:
    """Makes the bank in `folder`, which must not exist, of all that `source` holds.

    Args:
        source: bank that is copied, with all its silos; its checksums have been looked at.
        folder: folder of the new bank.
        silos: names of the new bank's silos, in the order of their answers: those of `source` under their new names,
            and others that have answered nothing yet.
        label_sets: what the columns of each of these silos' answers mean.
        lineage: where the answers come from.
        renamed: new names of silos of `source` whose names change.
        priors: names of priors that further images will come from.

    Raises:
        BankError: it cannot be written, or `source` cannot be read.
    """
    names = {silo: (renamed or {}).get(silo, silo) for silo in source.silos}
    partial = folder.with_name(folder.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # of a copy that was cut short
        private_folder(partial)
        for part in source.data_of(None, slice(0, source.rows)) if source.rows else ():
            copy_bytes(source.folder / part.name, partial / part.name, part.size)
        with open(partial / TARGETS, "xb", opener=owner_only) as file:  # derived from the answers, and made anew
            file.truncate(source.rows * label_sets.classes * np.dtype(np.float32).itemsize)
        for silo, name in names.items():
            answered = [rows for batch in source.batches for rows in batch.answered_by(silo)]
            if answered:
                (part,) = source.data_of(silo, slice(0, answered[-1].stop))
                target = answers_file(list(silos).index(name))
                copy_bytes(source.folder / part.name, partial / target, part.size)
        more = [name for name in origin_table(priors) if name not in source.origin_names]
        origins = [*source.origin_names, *more][:MOST_ORIGINS] if source.notes_origins else None
        head = journal_head(source.image_shape, label_sets.classes, silos, label_sets, origins)
        head["nonce"] = uuid.uuid4().hex
        lines = [{**head, SUM: event_sum(head)}, *_events(source, names)]
        write_whole(partial / JOURNAL_FILE, "".join(json.dumps(line) + "\n" for line in lines), private=True)
        sync(partial / JOURNAL_FILE)
        write_lineage(partial, lineage)
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)
    except OSError as error:
        constraint = f"cannot be copied from {source.folder} ({error.strerror or error})"
        remedy = "free space or fix the permissions, then begin again: nothing was asked or charged"
        raise BankError(explain("bank", str(folder), constraint, remedy)) from error


def _events(source: BankView, names: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Lines of the new journal: each batch and who answered it, with sums that are taken of the data anew."""
    for batch in source.batches:
        made = {"batch": batch.query_id, "round": batch.round, "first": batch.first, "count": batch.count}
        yield _summed(source, made, None, batch.rows)
        for silo, name in names.items():
            for rows in batch.answered_by(silo):
                event: dict[str, object] = {"answered": batch.query_id, "silo": name}
                if rows != batch.rows:
                    count = rows.stop - rows.start
                    event = {"part": batch.query_id, "silo": name, "first": rows.start, "count": count}
                yield _summed(source, event, silo, rows)


def _summed(source: BankView, event: Mapping[str, object], silo: str | None, rows: slice) -> dict[str, object]:
    return {**event, SUM: event_sum(event, read_parts(source.folder, source.data_of(silo, rows)))}
