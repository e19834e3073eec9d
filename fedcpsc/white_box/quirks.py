# SPDX-License-Identifier: Apache-2.0
"""Where the authors' code departs from their paper, each departure by name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Quirks"]


@dataclass(frozen=True)
class Quirks:
    """All off: the equations as published. All on: what `reference_quirks: true` asks for.

    Attributes:
        softmax_twice: probabilities go into a cross-entropy that applies softmax again.
        adam_anew: the generator's Adam is made anew in each round, at its first rate: the milestones do nothing.
        norm_after_tanh: the generator's last CFE norm stands behind tanh, so pixels may leave [-1, 1].
        unused_gradients: the generator phase computes gradients of teacher and student weights that nobody uses.
        best_on_test: the student of the epoch that was best on the held-out images is the result.
    """

    softmax_twice: bool = False
    adam_anew: bool = False
    norm_after_tanh: bool = False
    unused_gradients: bool = False
    best_on_test: bool = False

    @classmethod
    def all(cls, on: bool) -> Quirks:
        """Every one of them, or none."""
        return cls(on, on, on, on, on)
