# SPDX-License-Identifier: Apache-2.0
"""Answers to parts of batches on their way into the bank: many small replies, few writes.

Each write waits for the disk twice. A silo that takes one image a query would have the server wait so for every image;
its answers are held here until its batch is complete, or there are some dozens. Where the process dies before, they are
asked for again under the same ids, and the silo's ledger returns them uncharged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedcpsc.distillation.parts import Part
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_index import Floats
from fedcpsc.runs.bank_journal import Batch

__all__ = ["HeldAnswers"]

_MOST = 32  # replies of a silo to a batch that are held


@dataclass
class _Held:
    """One silo's answers to parts of one batch: their rows and the decoded probabilities, float32 [n, K]."""

    batch: Batch
    silo: str
    answers: list[tuple[slice, Floats]] = field(default_factory=list)


class HeldAnswers:
    """Puts silos' answers to parts together, and stores them in the bank.

    Args:
        bank: answer bank that answers are stored in.
    """

    def __init__(self, bank: AnswerBank) -> None:
        self._bank = bank
        self._held: dict[tuple[str, str], _Held] = {}

    def add(self, silo: str, part: Part, probabilities: Floats) -> None:
        """Takes the answers to a part; stores them at once where it is a whole batch, or completes one.

        Args:
            silo: name of the silo that answered.
            part: images that were asked about.
            probabilities: decoded answers, float32 [n, K].
        """
        key = silo, part.batch.query_id
        held = self._held.setdefault(key, _Held(part.batch, silo))
        held.answers.append((part.rows, probabilities))
        missing = sum(hole.stop - hole.start for hole in part.batch.missing_of(silo))
        if len(held.answers) >= _MOST or sum(rows.stop - rows.start for rows, _ in held.answers) >= missing:
            self._store(self._held.pop(key))

    def store(self, silo: str | None = None) -> None:
        """Stores what is held of one silo; None: of all."""
        for key in [key for key in self._held if silo in (None, key[0])]:
            self._store(self._held.pop(key))

    def _store(self, held: _Held) -> None:
        """One write for rows that follow each other."""
        runs: list[list[tuple[slice, Floats]]] = []
        for rows, probabilities in sorted(held.answers, key=lambda answer: answer[0].start):
            if runs and runs[-1][-1][0].stop == rows.start:
                runs[-1].append((rows, probabilities))
            else:
                runs.append([(rows, probabilities)])
        for run in runs:
            rows = slice(run[0][0].start, run[-1][0].stop)
            joined = np.concatenate([probabilities for _, probabilities in run])
            self._bank.add_answers(held.batch.query_id, held.silo, joined, rows)
