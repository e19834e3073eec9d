# SPDX-License-Identifier: Apache-2.0
"""Whom a finished run would have suspected."""

import numpy as np

from benchmarks.suspected import suspicions
from fedcpsc.runs.answer_bank import AnswerBank

CLASSES, IMAGES = 4, 1000


def honest(seed):
    """Answers [N, K] of a teacher that is mostly right and fairly sure."""
    rng = np.random.default_rng(seed)
    said = np.full((IMAGES, CLASSES), 0.1, np.float32) + rng.random((IMAGES, CLASSES)).astype(np.float32) * 0.1
    said[np.arange(IMAGES), np.arange(IMAGES) % CLASSES] += 0.7
    return said / said.sum(1, keepdims=True)


def run_of(folder, said):
    bank = AnswerBank(folder / "bank", (1, 4, 4), CLASSES, [f"silo-{s}" for s in range(len(said))])
    for first in range(0, IMAGES, 250):
        images = np.random.default_rng(first).integers(0, 256, (250, 1, 4, 4)).astype(np.uint8)
        batch = bank.add_batch(first // 250, images, np.zeros(250, np.int64))
        for s, answers in enumerate(said):
            bank.add_answers(batch.query_id, f"silo-{s}", answers[first : first + 250])
    return folder


def test_honest_silos_are_not_suspected_and_a_liar_is_at_every_look(tmp_path):
    looks, found = suspicions(run_of(tmp_path / "honest", [honest(s) for s in range(4)]))
    assert (looks, found) == (4, {})
    liar = np.roll(honest(3), 1, axis=1)
    _, found = suspicions(run_of(tmp_path / "lied to", [honest(0), honest(1), honest(2), liar]))
    assert list(found) == ["silo-3"]
    assert [count for count, _ in found["silo-3"]] == [250, 500, 750, 1000]
