# SPDX-License-Identifier: Apache-2.0
"""Which rounds a run has: those whose images another run made, where it began with that run's answers, and its own."""

from __future__ import annotations

from dataclasses import dataclass

from fedcpsc.config import RunConfig
from fedcpsc.runs.lineage import Lineage

__all__ = ["RoundPlan"]


@dataclass(frozen=True)
class RoundPlan:
    """Rounds, their images and their steps. Inherited rounds come first; all rounds count from 0.

    Attributes:
        config: configuration of the run.
        ends: number of the round after each inherited round group's last, ascending; empty where none was inherited.
        inherited_images: number of images of the inherited rounds, >= 0.
    """

    config: RunConfig
    ends: tuple[int, ...] = ()
    inherited_images: int = 0

    @classmethod
    def of(cls, config: RunConfig, lineage: Lineage | None) -> RoundPlan:
        """The plan of a run.

        Args:
            config: configuration of the run.
            lineage: where the bank's answers came from; None where the run asks for all of them itself.
        """
        return cls(config) if lineage is None else cls(config, lineage.ends, lineage.images)

    @property
    def inherited(self) -> int:
        """Number of inherited rounds, >= 0."""
        return self.ends[-1] if self.ends else 0

    @property
    def own_images(self) -> int:
        """Number of images that the run makes itself, >= 0."""
        return max(0, self.config.queries.answers_per_silo - self.inherited_images)

    @property
    def own_rounds(self) -> int:
        """Number of rounds in which it asks about them: `queries.rounds`, or one an image where there are fewer."""
        return min(self.config.queries.rounds, self.own_images)

    @property
    def rounds(self) -> int:
        """Number of all rounds."""
        return self.inherited + self.own_rounds

    def images_before(self, round_index: int) -> int:
        """Number of images that are banked where all rounds before this one have been asked about."""
        if round_index <= self.inherited:
            return self.inherited_images if round_index else 0
        return self.inherited_images + self.own_images * (round_index - self.inherited) // self.own_rounds

    def images_of(self, round_index: int) -> int:
        """Number of images that the run makes for one of its own rounds, >= 1."""
        own, rounds, number = self.own_images, self.own_rounds, round_index - self.inherited
        return own * (number + 1) // rounds - own * number // rounds

    def steps_of(self, round_index: int) -> int:
        """Number of steps on the bank of each network of the committee after a round, see `student.steps_per_round`."""
        if round_index < self.inherited:
            return self.config.steps_of_round(self.inherited_images / self.inherited)
        return self.config.steps_of_round(self.own_images / self.own_rounds)

    def steps_before(self, round_index: int, networks: int, of_synthesis: int) -> int:
        """Number of optimiser steps of all rounds before this one, which tells how much of a run's work is done.

        Args:
            round_index: number of the round, in [0, rounds].
            networks: number of networks that are fitted.
            of_synthesis: number of steps that a round's images cost, where the run makes them itself.
        """
        inherited, own = min(round_index, self.inherited), max(0, round_index - self.inherited)
        steps = inherited * self.steps_of(0) * networks if inherited else 0
        return steps + own * (self.steps_of(self.inherited) * networks + of_synthesis) if own else steps
