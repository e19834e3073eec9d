# SPDX-License-Identifier: Apache-2.0
"""What the attacker sees: no more than the form lets out, and no less than can be read from it."""

import numpy as np
import pytest

from fedcpsc.audit.observe import (
    VIEWS,
    AnswerChannel,
    public_views,
    seen_by_labels,
    seen_by_probabilities,
    through_form,
)
from fedcpsc.protocol.messages import AnswerForm

LABELS = np.array([0, 1, 2, 0])


@pytest.fixture
def outputs():
    """Three models on four images of five classes."""
    return np.random.default_rng(0).dirichlet(np.ones(5), (3, 4)).astype(np.float32)


def test_a_form_hides_what_it_hides(outputs):
    eight = through_form(outputs, AnswerChannel(AnswerForm.PROBABILITIES, 8))
    assert np.abs(eight - outputs).max() < 0.01
    top = through_form(outputs, AnswerChannel(AnswerForm.TOP_K, 32, 2))
    ranks = np.argsort(-outputs, -1)
    for model in range(3):
        for image in range(4):
            hidden = top[model, image, ranks[model, image, 2:]]
            assert np.ptp(hidden) == 0  # what was not shown is spread evenly
    label = through_form(outputs, AnswerChannel(AnswerForm.LABEL))
    assert np.array_equal(label.argmax(-1), outputs.argmax(-1))
    assert set(np.unique(label)) == {0, 1}


def test_two_teachers_that_answer_alike_look_alike(outputs):
    """The statistic is a function of the answers alone."""
    swapped = outputs.copy()
    order = np.argsort(-outputs, -1)
    third, fourth = order[..., 2:3], order[..., 3:4]
    a, b = np.take_along_axis(outputs, third, -1), np.take_along_axis(outputs, fourth, -1)
    np.put_along_axis(swapped, third, b, -1)
    np.put_along_axis(swapped, fourth, a, -1)
    view = AnswerChannel(AnswerForm.TOP_K, 32, 2)
    one, other = (seen_by_probabilities(each, LABELS, view) for each in (outputs, swapped))
    np.testing.assert_allclose(one.statistic, other.statistic, rtol=1e-5)
    whole = [seen_by_probabilities(each, LABELS, AnswerChannel()).statistic for each in (outputs, swapped)]
    assert not np.allclose(*whole)


def test_eight_bits_never_look_like_certainty():
    sure = np.array([[[1.0, 0.0]], [[0.9999, 0.0001]], [[0.0, 1.0]]], np.float32)
    seen = seen_by_probabilities(sure, np.array([0]), AnswerChannel(AnswerForm.PROBABILITIES, 8))
    limit = np.log(509)  # of 510 halves of a level
    assert seen.statistic[0, 0] == pytest.approx(limit)
    assert seen.statistic[1, 0] == pytest.approx(limit)
    assert seen.statistic[2, 0] == pytest.approx(-limit)
    exact = seen_by_probabilities(sure, np.array([0]), AnswerChannel()).statistic
    assert exact[0, 0] > exact[1, 0] > limit  # 32 bits tell them apart


def test_views_are_public_and_the_image_is_one_of_them():
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
    views = public_views(images)
    assert len(views) == VIEWS
    assert np.array_equal(views[0], images)
    assert all(np.array_equal(a, b) for a, b in zip(views, public_views(images), strict=True))
    assert len({view.tobytes() for view in views}) == VIEWS


def test_labels_alone_give_the_share_of_views_that_keep_the_true_label():
    images = np.full((4, 1, 8, 8), 128, np.uint8)
    images[2] = 127  # the only ones at the threshold: noise decides

    def predict(view):
        light = view.mean((1, 2, 3)) > 127.5
        return np.stack([np.stack([~light, light, np.zeros(4)], -1)] * 2).astype(np.float32)

    seen = seen_by_labels(predict, images, LABELS)
    bright = np.array([view.mean((1, 2, 3)) > 127.5 for view in public_views(images)]).mean(0)
    np.testing.assert_allclose(seen.statistic[0], [1 - bright[0], bright[1], 0, 1 - bright[3]])
    assert seen.loss is None
    assert seen.likelihood.min() > 0
