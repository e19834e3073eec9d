# SPDX-License-Identifier: Apache-2.0
"""A silo that was adopted, asked as a server would ask it."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.protocol.messages import Answer, AnswerForm, Query, QueryTarget, decode_answers


def answers_of(target: QueryTarget, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Its decoded answers, float32 [N, K]."""
    answer = target.answer(Query(uuid.uuid4().hex, AnswerForm.PROBABILITIES, images))
    assert isinstance(answer, Answer), answer
    values = answer.values.astype(np.float32)
    return values / 255 if answer.values.dtype == np.uint8 else decode_answers(answer)


def ask(folder: Path, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], int]:
    """The answers of the silo in `folder`, and the images that its ledger has charged then."""
    with contextlib.closing(open_gatekeeper(folder, tried=True)) as gatekeeper:
        return answers_of(gatekeeper, images), gatekeeper.ledger.status().spent.answers


def own_softmax(
    model: Path, images: npt.NDArray[np.uint8], mean: float = 0.5, std: float = 0.5
) -> npt.NDArray[np.float64]:
    """What onnxruntime and a softmax in double precision give for an ONNX model, past all of this project."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    pixels = ((images / 255 - mean) / std).astype(np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: pixels})
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
