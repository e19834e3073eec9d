"""How the rounds overlap: how many may be outstanding, which answers may be seen, how many rounds share a query.

What the committee sees is settled by the rounds' numbers and never by the clock. While a bundle of rounds is worked on,
the server sees the answers to the bundles that it has waited for, and no other, though they may have come: so the same
answers give the same student whether they came early or just in time, in one go or over several attempts. The clock
has its say in one decision only, how many rounds the next bundle holds, and that stands in the checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedcpsc.config import QueriesConfig

__all__ = ["Course", "Pace", "next_size"]

_LEAST_QUERIES = 5  # of a run: fewer, and the committee guides hardly any of the images
_TAIL = 0.5  # share of the final fit by which every answer is seen


@dataclass(frozen=True)
class Pace:
    """The configuration's wishes with the blanks filled in; see `QueriesConfig`."""

    ahead: int
    in_flight: int
    waiting_goal: float

    @classmethod
    def of(cls, queries: QueriesConfig) -> Pace:
        """Blanks mean no overlap: every round is waited for, and the clock decides nothing."""
        goal = 1.0 if queries.waiting_goal is None else queries.waiting_goal
        return cls(queries.ahead or 0, queries.in_flight or 1, goal)


@dataclass(frozen=True)
class Course:
    """The bundles so far. A bundle is one or more rounds, made together and asked about in one go.

    Attributes:
        ahead: bundles that may be outstanding while the server goes on.
        ends: the round after each bundle's last, ascending; rounds count from 0.
        size: rounds of the next bundle, >= 1.
    """

    ahead: int
    ends: tuple[int, ...] = ()
    size: int = 1

    @property
    def asked(self) -> int:
        """Rounds before this one have been asked about."""
        return self.ends[-1] if self.ends else 0

    @property
    def seen(self) -> int:
        """Rounds before this one are waited for and seen; the first bundle always: without it nothing can be fitted."""
        return self.ends[self._newest] if self.ends else 0

    @property
    def newest(self) -> range:
        """Rounds of the newest bundle that is seen."""
        return range(self.ends[self._newest - 1] if self._newest > 0 else 0, self.seen)

    @property
    def _newest(self) -> int:
        return max(0, len(self.ends) - 1 - self.ahead)

    def bundle(self, rounds: int) -> range:
        """The next bundle of a run of `rounds` rounds."""
        return range(self.asked, min(self.asked + self.size, rounds))

    def after(self, bundle: range) -> Course:
        """The course with that bundle asked about."""
        return replace(self, ends=(*self.ends, bundle.stop))

    def seen_by(self, step: int, final_steps: int) -> int:
        """Rounds before this one are seen at a step of the final fit.

        What is outstanding when it begins is waited for one bundle after the other, evenly over its first half, while
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
    """Rounds of the next bundle, so that the silos need no longer for a query than the server for its rounds.

    Per bundle of k rounds the server works k * work_s while the slowest silo needs answer_s, which is mostly a fixed
    cost of each message; the share of waiting is then 1 - k * work_s / answer_s. Bundles never shrink again: what was
    measured slow once may be so again. They at most double, since the first measurements are coarse.

    Args:
        size: size of the bundle just done, in rounds.
        answer_s: seconds the slowest silo needs for a query.
        work_s: seconds of the server's work for a round, > 0.
        waiting_goal: tolerated share of waiting, in (0, 1]; 1 keeps the size.
        images_fit: rounds whose images together fit into a query.
        rounds: number of rounds of the run; no bundle is so large that fewer than five queries would carry the run.
    """
    wanted = math.ceil((1 - waiting_goal) * answer_s / work_s)
    return max(size, min(wanted, 2 * size, images_fit, rounds // _LEAST_QUERIES))
