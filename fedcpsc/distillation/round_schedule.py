# SPDX-License-Identifier: Apache-2.0
"""How the rounds overlap: how many may be outstanding, which answers may be used, how many rounds share a query.

What the committee sees is settled by the rounds' numbers and never by the clock. While a round group is worked on, the
server uses the answers to the groups that it has waited for, and no other, though they may have come: so the same
answers give the same student whether they came early or just in time, in one go or over several attempts. The clock
decides one thing only, how many rounds the next group holds, and that number is kept in the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedcpsc.config import QueriesConfig

__all__ = ["OverlapPolicy", "RoundSchedule", "images_of_round", "next_size"]

_LEAST_QUERIES = 5  # of a run: fewer, and the committee guides hardly any of the images
_TAIL = 0.5  # share of the final fit by which every answer is seen


def images_of_round(queries: QueriesConfig, round_index: int) -> int:
    """How many images are asked about in a round, counted from 0: the budget spread evenly over the rounds."""
    budget, rounds = queries.answers_per_silo, queries.rounds
    return budget * (round_index + 1) // rounds - budget * round_index // rounds


@dataclass(frozen=True)
class OverlapPolicy:
    """The configuration's wishes with the blanks filled in; see `QueriesConfig`.

    Attributes:
        max_outstanding: number of round groups that may be outstanding while the server goes on, >= 0; the
            configuration's `queries.ahead`.
        in_flight: number of queries that may be in flight at a silo, >= 1.
        waiting_goal: tolerated share of waiting, in (0, 1]; 1 lets every round be a group of its own.
    """

    max_outstanding: int
    in_flight: int
    waiting_goal: float

    @classmethod
    def of(cls, queries: QueriesConfig) -> OverlapPolicy:
        """Blanks mean no overlap: every round is waited for, and the clock decides nothing."""
        goal = 1.0 if queries.waiting_goal is None else queries.waiting_goal
        return cls(queries.ahead or 0, queries.in_flight or 1, goal)


@dataclass(frozen=True)
class RoundSchedule:
    """The round groups so far. A group is one or more rounds, whose images are made and asked about together.

    Attributes:
        max_outstanding: number of groups that may be outstanding while the server goes on, >= 0.
        ends: number of the round after each group's last, ascending; rounds count from 0.
        size: number of rounds in the next group, >= 1.
    """

    max_outstanding: int
    ends: tuple[int, ...] = ()
    size: int = 1

    @property
    def asked(self) -> int:
        """Rounds before this one have been asked about."""
        return self.ends[-1] if self.ends else 0

    @property
    def seen(self) -> int:
        """Rounds before this one are waited for and used; the first group always: without it nothing can be fitted."""
        return self.ends[self._newest] if self.ends else 0

    @property
    def newest(self) -> range:
        """Rounds of the newest group whose answers are used."""
        return range(self.ends[self._newest - 1] if self._newest > 0 else 0, self.seen)

    @property
    def _newest(self) -> int:
        return max(0, len(self.ends) - 1 - self.max_outstanding)

    def next_group(self, rounds: int) -> range:
        """The next group of a run of `rounds` rounds."""
        return range(self.asked, min(self.asked + self.size, rounds))

    def after(self, group: range) -> RoundSchedule:
        """The schedule once that group is asked about."""
        return replace(self, ends=(*self.ends, group.stop))

    def seen_by(self, step: int, final_steps: int) -> int:
        """Rounds before this one are used at a step of the final fit.

        What is outstanding when it begins is waited for one group after the other, evenly over its first half, while
        the learning rate is still high.
        """
        outstanding = self.ends[self._newest + 1 :]
        due = [
            end
            for i, end in enumerate(outstanding, 1)
            if step >= math.floor(_TAIL * final_steps * i / len(outstanding))
        ]
        return max([self.seen, *due])


def next_size(size: int, *, answer_s: float, work_s: float, waiting_goal: float, images_fit: int, rounds: int) -> int:
    """Rounds of the next group, so that a silo needs no longer for a query than the server for its rounds.

    Per group of k rounds the server works k * work_s while the silo needs answer_s, which is mostly a fixed
    cost of each message; the share of waiting is then 1 - k * work_s / answer_s. Groups never shrink again: what was
    measured slow once may be so again. They at most double, since the first measurements are coarse. Of several silos
    the largest size is taken: one whose queries hold few images is asked more often for a larger group, and wants none.

    Args:
        size: number of rounds in the group just done, >= 1.
        answer_s: seconds the silo needs for a query.
        work_s: seconds of the server's work for a round, > 0.
        waiting_goal: tolerated share of waiting, in (0, 1]; 1 keeps the size.
        images_fit: number of rounds whose images together fit into a query to it.
        rounds: number of rounds of the run; no group is so large that fewer than five queries would carry the run.
    """
    wanted = math.ceil((1 - waiting_goal) * answer_s / work_s)
    return max(size, min(wanted, 2 * size, images_fit, rounds // _LEAST_QUERIES))
