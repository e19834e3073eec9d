# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are: those that a softmax would spoil are told from logits and refused."""

import numpy as np
import pytest

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.outputs import meaning_of, softmax
from fedcpsc.teachers.trial import try_teacher
from fedcpsc.teachers.trying import settle_outputs

SHAPE = (1, 8, 8)
LOGITS = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32) * 0.05


class Ended:
    """A linear classifier with something after its softmax."""

    image_shape, classes, normalisation = SHAPE, 10, Normalisation(mean=(0.5,), std=(0.5,))

    def __init__(self, end):
        self.end = end

    def logits(self, images):
        return images.reshape(len(images), -1) / np.float32(127.5) @ LOGITS

    def outputs(self, images):
        return self.end(softmax(self.logits(images))).astype(np.float32)

    def predict(self, images):
        return softmax(self.outputs(images))


SPOILT = {
    "percentages": lambda p: 100 * p,
    "bytes": lambda p: np.round(255 * p),
    "bytes rounded down": lambda p: np.minimum(np.floor(256 * p), 255),
    "votes of a hundred trees": lambda p: np.eye(10)[p.argmax(1)] * 60 + np.eye(10)[p.argmin(1)] * 40,
}


@pytest.mark.parametrize("end", SPOILT.values(), ids=SPOILT)
def test_scores_that_share_out_one_sum_are_refused_unless_their_owner_says_that_they_are_logits(end):
    for said in (None, True):
        with pytest.raises(ManifestError, match="with one sum in every row, as percentages or bytes.*softmax"):
            settle_outputs(Ended(end), said, "model")
    found = settle_outputs(Ended(end), False, "model")
    assert found.probabilities is False
    assert "their owner says that they are logits" in found.notes[0]


@pytest.mark.parametrize("said", [None, True, False])
def test_negated_logarithms_are_refused_whatever_their_owner_says(said):
    with pytest.raises(ManifestError, match="the smallest belongs to the likeliest class; .*without the minus sign"):
        settle_outputs(Ended(lambda p: -np.log(p)), said, "model")


def test_a_teacher_by_hand_with_such_outputs_is_warned_of_when_it_is_tried():
    for end in (SPOILT["percentages"], lambda p: -np.log(p)):
        found = try_teacher(Ended(end), SHAPE, 8)
        assert any(warning.startswith("its outputs are") for warning in found.warnings)
    assert try_teacher(Ended(np.log), SHAPE, 8).warnings == ()


def test_logits_stay_logits():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(8, 10)).astype(np.float32) * 9
    for found in (
        logits,
        np.maximum(logits, 0),  # after a ReLU
        np.round(np.abs(logits)) + 1,  # whole numbers
        logits - logits.mean(1, keepdims=True),  # rows sum to 0
        np.arange(1, 11, dtype=np.float32) + logits * 1e-5,  # of an untrained network: hardly more than its biases
        softmax(logits) * 100 - 50,
    ):
        assert meaning_of(found.astype(np.float32)) == "logits"
