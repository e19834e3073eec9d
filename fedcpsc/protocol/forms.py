# SPDX-License-Identifier: Apache-2.0
"""Answer forms: how much of a distribution an answer shows, and in how many bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.protocol.messages import AnswerForm

__all__ = ["shape_answer"]


def shape_answer(
    scores: npt.NDArray[np.float32], form: AnswerForm, *, bits: int, top_k: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint16] | None]:
    """`values` and `indices` of an `Answer`. Post-processing: it reads nothing but `scores`.

    Args:
        scores: float32 [N, K]; probabilities, or noisy ones (finite, any sign).
        form: what is shown.
        bits: 8 clips to [0, 1] and rounds 255 p to uint8; 32 sends float32 as it is.
        top_k: classes shown by the form `top_k`, at most K are.

    Returns:
        probabilities: [N, K] and None; top_k: [N, k] in falling order and uint16 [N, k]; label: uint16 [N] and None.
        Of equal scores the lower class index comes first.
    """
    if form is AnswerForm.LABEL:
        return scores.argmax(1).astype(np.uint16), None
    if form is AnswerForm.TOP_K:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return _encode(np.take_along_axis(scores, order, axis=1), bits), order.astype(np.uint16)
    return _encode(scores, bits), None


def _encode(values: npt.NDArray[np.float32], bits: int) -> npt.NDArray[Any]:
    if bits == 8:
        levels: npt.NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
        return levels
    return np.ascontiguousarray(values, np.float32)
