# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are, seen by a trial, and how they become probabilities."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import numpy as np

from fedcpsc.errors import TeacherError, explain
from fedcpsc.teachers.protocol import Floats

__all__ = ["MISREAD", "Meaning", "meaning_of", "softmax", "to_probabilities"]

Meaning: TypeAlias = Literal[
    "logits", "log_probabilities", "negated_log_probabilities", "probabilities", "scaled_shares", "shares", "constant"
]
"""What rows of outputs are.

- logits: softmax makes probabilities of them.
- log_probabilities: their powers sum to 1; softmax gives exactly those.
- negated_log_probabilities: the same with the other sign, so that the smallest belongs to the likeliest class.
- probabilities: in [0, 1], rows sum to 1, a softmax inside the model.
- scaled_shares: >= 0, and all rows have about one sum > 1, such as percentages, or bytes of a quantised softmax.
- shares: in [0, 1], rows do not sum to 1, such as a sigmoid for each class.
- constant: the same for every image, so that nothing can be seen.
"""

MISREAD: dict[Meaning, tuple[str, str]] = {
    "shares": (
        "lie in [0, 1] and do not sum to 1, as of one sigmoid for each class",
        "say that they are logits where they are; else export a model that ends in logits or softmax",
    ),
    "scaled_shares": (
        "are >= 0 with one sum in every row, as percentages or bytes of a softmax",
        "export a model that ends in logits or softmax; or say that they are logits where they are",
    ),
    "negated_log_probabilities": (
        "are logarithms of probabilities with the other sign, so that the smallest belongs to the likeliest class",
        "export the model without the minus sign",
    ),
}
"""Outputs of which softmax makes wrong answers: what they look like, and a remedy."""

_ROUNDING = 2e-3  # float16 sums of a thousand shares
_QUANTISED = (254, 257)  # sums that bytes of a softmax are made for: 255, or 256
_STEADY = 0.05  # of the outputs' own spread, which the sums of shares stay below


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
    for sign, meaning in ((1, "log_probabilities"), (-1, "negated_log_probabilities")):
        signed = sign * outputs
        if signed.max() <= _ROUNDING and np.abs(np.exp(signed).sum(1) - 1).max() <= _ROUNDING:
            return cast("Meaning", meaning)
    return "scaled_shares" if _are_scaled_shares(outputs) else "logits"


def _are_scaled_shares(outputs: Floats) -> bool:
    """Whether rows are >= 0 and share out one sum; those of whole numbers, 255 or 256 but for rounding."""
    if outputs.min() < 0:
        return False
    sums = outputs.sum(1, dtype=np.float64)
    if np.array_equal(outputs, outputs.round()):
        slack = outputs.shape[1] / 2  # each is rounded by at most a half
        low, high = _QUANTISED[0] - slack, _QUANTISED[1] + slack
        if outputs.max() < _QUANTISED[1] and low <= sums.min() and sums.max() <= high:
            return True
    spread, own = float(np.ptp(sums)), float(np.ptp(outputs, axis=0).max())
    return spread <= _ROUNDING * float(sums.mean()) and spread <= _STEADY * own
