# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are, seen by a trial, and how they become probabilities."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from fedcpsc.errors import TeacherError, explain
from fedcpsc.teachers.protocol import Floats

__all__ = ["Meaning", "meaning_of", "softmax", "to_probabilities"]

Meaning: TypeAlias = Literal["logits", "log_probabilities", "probabilities", "shares", "constant"]
"""What rows of outputs are.

- logits: softmax makes probabilities of them.
- log_probabilities: their powers sum to 1; softmax gives exactly those.
- probabilities: in [0, 1], rows sum to 1, a softmax inside the model.
- shares: in [0, 1], rows do not sum to 1, such as a sigmoid for each class.
- constant: the same for every image, so that nothing can be seen.
"""

_ROUNDING = 2e-3  # float16 sums of a thousand shares


def softmax(logits: Floats) -> Floats:
    """Probabilities, float32 [N, K], of logits [N, K]."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: Floats = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def to_probabilities(outputs: Floats, *, probabilities: bool) -> Floats:
    """Probabilities, float32 [N, K], of a model's outputs.

    Args:
        outputs: outputs [N, K].
        probabilities: whether they are probabilities already: they then are only scaled by what rounding left of their
            sum.

    Raises:
        TeacherError: where they are no [N, K], or no probabilities although they should be. The message holds no value.
    """
    if outputs.ndim != 2:
        shown = list(outputs.shape)
        raise TeacherError(explain("teacher output", shown, "must be [N, K], one row for each image", "export again"))
    outputs = outputs.astype(np.float32, copy=False)
    if not probabilities:
        return softmax(outputs)
    sums = outputs.sum(1, keepdims=True)
    if not np.isfinite(sums).all() or outputs.min() < -_ROUNDING or np.abs(sums - 1).max() > _ROUNDING:
        remedy = "the manifest says `probabilities: true`: adopt the model again, without that word"
        raise TeacherError(explain("teacher output", "no distribution", "rows must be >= 0 and sum to 1", remedy))
    shares: Floats = np.clip(outputs, 0, None)
    shares /= shares.sum(1, keepdims=True)
    return shares


def meaning_of(outputs: Floats) -> Meaning:
    """What a model's outputs on unlike images are.

    Args:
        outputs: finite float32 [N, K], N >= 2.
    """
    if np.ptp(outputs, axis=0).max() <= 1e-6 * max(1.0, float(np.abs(outputs).max())):
        return "constant"
    if outputs.min() >= 0 and outputs.max() <= 1 + _ROUNDING:
        return "probabilities" if np.abs(outputs.sum(1) - 1).max() <= _ROUNDING else "shares"
    if outputs.max() <= _ROUNDING and np.abs(np.exp(outputs).sum(1) - 1).max() <= _ROUNDING:
        return "log_probabilities"
    return "logits"
