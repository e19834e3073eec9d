# SPDX-License-Identifier: Apache-2.0
"""Rows of a data set of answers, read from a bank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedcpsc.answer_set.facts import AnswerSetFacts
from fedcpsc.answer_set.rows import AnswerRows, rows_at_once
from fedcpsc.distillation.targets import TargetMaker
from fedcpsc.runs.bank_view import BankView

__all__ = ["banked_rows", "count_origins"]


def banked_rows(
    bank: BankView, maker: TargetMaker, facts: AnswerSetFacts, places: npt.NDArray[np.int64]
) -> Iterator[AnswerRows]:
    """The rows that any of a bank's silos answered, in the bank's order, some at a time.

    Args:
        bank: bank with the silos that are handed on and no others.
        maker: maker of the targets, which has learnt from that bank.
        facts: what is to be written.
        places: class in the data set of each of the run's, int64 [classes of the run]; -1 where it is gone.

    Raises:
        BankError: answers that the journal lists are not on the disk.
    """
    step = rows_at_once(facts)
    for batch in bank.batches:
        if not batch.heard:
            continue
        targets = maker.targets_of(batch, bank.rows)
        for first in range(batch.first, batch.rows.stop, step):
            rows = slice(first, min(first + step, batch.rows.stop))
            count = rows.stop - rows.start
            given = np.zeros((len(bank.silos), count), bool)
            answers = [np.zeros((count, width), np.float32) for width in bank.label_sets.widths]
            for place, silo in enumerate(bank.silos):
                for part in batch.answered_by(silo):
                    own = slice(max(part.start, rows.start), min(part.stop, rows.stop))
                    if own.start < own.stop:
                        here = slice(own.start - rows.start, own.stop - rows.start)
                        given[place, here] = True
                        answers[place][here] = bank.own_answers(silo, own)
            heard = given.any(0)
            made_for = np.asarray(bank.pseudo_labels[rows])
            yield AnswerRows(
                images=np.asarray(bank.images[rows])[heard],
                rounds=np.full(int(heard.sum()), batch.round, np.int64),
                pseudo_labels=np.where(made_for >= 0, places[made_for], -1)[heard],
                origins=np.asarray(bank.origins[rows], np.int64)[heard],
                targets=targets[first - batch.first : rows.stop - batch.first][heard],
                answers=tuple(own[heard] for own in answers) if facts.with_answers else (),
                given=given[:, heard] if facts.with_answers else given[:0, heard],
            )


def count_origins(bank: BankView) -> dict[str, int]:
    """How many of the answered images come from where, by the bank's names for that."""
    counts = np.bincount(bank.origins[bank.answered_rows()], minlength=len(bank.origin_names))
    return dict(zip(bank.origin_names, counts.tolist(), strict=True))
