# SPDX-License-Identifier: Apache-2.0
"""Where the authors' code departs from their paper, each departure by name."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Quirks"]


@dataclass(frozen=True)
class Quirks:
    """All off: the equations as published. All on: what `reference_quirks: true` asks for.

    Source: the authors' code, github.com/RoryShao/CPSC-DFKD, commit 1c6ade1. docs/white_box.md says what of it no
    switch covers.

    Attributes:
        softmax_twice: probabilities go into a cross-entropy that applies softmax again.
        draws_anew: z and labels are drawn anew for each generator step, not for each round; what a step learns about z
            is thus never used.
        adam_anew: the generator's Adam is made anew for each generator step, at its first rate: it has no moments,
            every weight moves by about the rate, and the milestones do nothing.
        student_in_training: the student is in training mode during generator steps: its batch norms normalise by the
            batch, and their running statistics move.
        l2_detached: no gradient of the generator's L_2 passes through the teacher.
        contrast_scaled: L_SCL is multiplied by its temperature / 0.07; a temperature of 0.07 leaves it as it is.
        norm_after_tanh: the generator's last CFE norm stands behind tanh, so pixels may leave [-1, 1].
        small_form: images of 64x64 and more are made by the generator that the paper has for smaller ones.
        unused_gradients: the generator phase computes gradients of teacher and student weights that nobody uses.
        best_on_test: the student of the epoch that was best on the held-out images is the result.
    """

    softmax_twice: bool = False
    draws_anew: bool = False
    adam_anew: bool = False
    student_in_training: bool = False
    l2_detached: bool = False
    contrast_scaled: bool = False
    norm_after_tanh: bool = False
    small_form: bool = False
    unused_gradients: bool = False
    best_on_test: bool = False

    @classmethod
    def all(cls, on: bool) -> Quirks:
        """Every one of them, or none."""
        return cls(**dict.fromkeys(cls.names(), on))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the switches, in the order of the attributes."""
        return tuple(field.name for field in fields(cls))
