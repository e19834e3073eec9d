# SPDX-License-Identifier: Apache-2.0
"""Whom a run would have suspected, and how long: of finished runs, after every 250 images.

    python -m benchmarks.suspected RUN [RUN ...]

Of a simulated run of honest silos every suspicion is a wrong one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fedcpsc.aggregation.reputation import judge
from fedcpsc.aggregation.rule import Answered, Floats
from fedcpsc.errors import RunError, explain
from fedcpsc.runs.bank_view import BankView, find_bank

__all__ = ["Answers", "answers_of", "suspicions"]

_STEP = 250  # images between two looks


class Answers:
    """Answers of a bank, as the judge takes them: [S, N, K], and who gave one, [S, N]."""

    def __init__(self, said: Floats, given: Answered) -> None:
        self._said, self._given = said, given
        self.shape = (said.shape[0], said.shape[2])

    def sample(self) -> tuple[Floats, Answered]:
        """Answers [S, N, K], and who gave one, [S, N]."""
        return self._said.copy(), self._given.copy()


def answers_of(bank: BankView) -> tuple[Floats, Answered]:
    """All answers of a bank, [S, N, K], and who gave one, [S, N]."""
    parts = [bank.answers(batch) for batch in bank.batches]
    return np.concatenate([said for said, *_ in parts], 1), np.concatenate([given for _, given, *_ in parts], 1)


def suspicions(run: Path) -> tuple[int, dict[str, list[tuple[int, str]]]]:
    """Number of looks at a run, and of each silo that was suspected at any: after how many images, and why.

    Args:
        run: folder of a run.

    Raises:
        RunError: it is none.
    """
    bank = find_bank(run)
    if bank is None:
        raise RunError(explain("run", str(run), "holds no bank of answers", "give the folder of a run"))
    said, given = answers_of(bank)
    looks, found = range(_STEP, said.shape[1] + 1, _STEP), dict[str, list[tuple[int, str]]]()
    for count in looks:
        standing = judge(Answers(said[:, :count], given[:, :count]), bank.label_sets.known)
        for silo, why in zip(bank.silos, standing.suspicions() if standing is not None else (), strict=False):
            if why is not None:
                found.setdefault(silo, []).append((count, why))
    return len(looks), found


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    for run in parser.parse_args().runs:
        looks, found = suspicions(run)
        print(f"{run.name}: {len(found)} silos suspected at any of {looks} looks")
        for silo, times in sorted(found.items()):
            print(f"  {silo} at {len(times)}, last after {times[-1][0]:,} images: {times[-1][1]}")


if __name__ == "__main__":
    _main()
