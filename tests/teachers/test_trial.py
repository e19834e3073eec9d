# SPDX-License-Identifier: Apache-2.0
"""A teacher is tried before it is trusted: what fails is said with the number of images, what looks wrong is named."""

import numpy as np
import pytest

from fedcpsc.errors import TeacherError
from fedcpsc.teachers import trial as trial_module
from fedcpsc.teachers.invented import invented_images
from fedcpsc.teachers.trial import try_teacher

SHAPE = (3, 6, 5)


class Linear:
    """A linear classifier; `predict` can be replaced."""

    image_shape = SHAPE

    def __init__(self, classes: int = 4, scale: float = 3.0) -> None:
        self.classes = classes
        self.counts: list[int] = []
        self._weights = np.random.default_rng(5).normal(0, scale, (np.prod(SHAPE), classes)).astype(np.float32)

    def logits(self, images):
        return (images.reshape(len(images), -1) / 255 - 0.5) @ self._weights

    def predict(self, images):
        self.counts.append(len(images))
        return softmax(self.logits(images))


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def test_a_sound_teacher_is_tried_on_one_on_two_and_on_a_full_batch_and_passes():
    teacher = Linear()
    found = try_teacher(teacher, SHAPE, 50)
    assert {1, 2, 50, 51} <= set(teacher.counts)
    assert found.batch_size == 50
    assert found.warnings == ()
    assert found.seconds > 0
    assert found.peak_bytes_of_1000 == found.peak_bytes + 1000 * 90
    assert "1,000 images take" in str(found)


@pytest.mark.parametrize(
    ("largest", "message"),
    [(0, "1 invented image of"), (1, "2 invented images of .* a free number of images"), (50, "51 invented images of")],
)
def test_one_that_takes_no_more_images_than_its_export_had_fails_with_their_number(largest, message):
    teacher = Linear()
    whole = teacher.predict

    def predict(images):
        if len(images) > largest:
            raise RuntimeError("Got: 2 Expected: 1")
        return whole(images)

    teacher.predict = predict
    with pytest.raises(TeacherError, match=f"{message}.*"):
        try_teacher(teacher, SHAPE, 50)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: p[:, :3], r"must be float32\[1, 4\]"),
        (lambda p: p.astype(np.float64), r"must be float32\[1, 4\]"),
        (lambda p: p[:-1], r"must be float32\[1, 4\]"),
        (lambda p: p * np.nan, "must be finite"),
        (lambda p: p - 0.5, "rows must be >= 0, sum 1"),
        (lambda p: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
    ids=["classes", "dtype", "count", "nan", "logits", "raises"],
)
def test_what_is_no_distribution_over_the_classes_fails(wrong, message):
    teacher = Linear()
    whole = teacher.predict
    teacher.predict = lambda images: wrong(whole(images))
    with pytest.raises(TeacherError, match=message):
        try_teacher(teacher, SHAPE, 50)


def test_shards_are_tried_too():
    teacher = Linear()

    def predict_shards(images):
        raise ValueError("shard 3")

    teacher.predict_shards = predict_shards
    with pytest.raises(TeacherError, match="shard 3"):
        try_teacher(teacher, SHAPE, 50)


def test_a_softmax_of_probabilities_is_named_with_the_bound_that_it_cannot_exceed_and_the_switch():
    teacher = Linear(classes=10, scale=9.0)
    teacher.predict = lambda images: softmax(softmax(teacher.logits(images)))
    (warning,) = try_teacher(teacher, SHAPE, 50).warnings
    assert "exceed 0.232" in warning
    assert "probabilities: true" in warning
    assert not try_teacher(teacher, SHAPE, 50, from_elsewhere=False).warnings


@pytest.mark.parametrize("scale", [0.1, 9.0], ids=["unsure", "sure"])
@pytest.mark.parametrize("inside", [False, True], ids=["logits", "probabilities"])
def test_a_model_that_shows_its_outputs_is_named_exactly_where_they_are_probabilities(inside, scale):
    teacher = Linear(classes=2, scale=scale)
    teacher.outputs = lambda images: softmax(teacher.logits(images)) if inside else teacher.logits(images)
    teacher.predict = lambda images: softmax(teacher.outputs(images))
    assert len(try_teacher(teacher, SHAPE, 50).warnings) == inside
    teacher.predict = teacher.outputs if inside else teacher.predict  # as with probabilities: true
    assert try_teacher(teacher, SHAPE, 50).warnings == ()


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("scale", [0.02, 0.3, 9.0])
def test_neither_an_unsure_model_nor_a_sure_one_is_taken_for_a_softmax_of_probabilities(classes, scale):
    assert try_teacher(Linear(classes, scale), SHAPE, 50).warnings == ()


def test_the_same_answer_for_every_image_is_named():
    teacher = Linear()
    teacher.predict = lambda images: np.full((len(images), 4), 0.25, np.float32)
    (warning,) = try_teacher(teacher, SHAPE, 50).warnings
    assert "51 unlike images one and the same answer" in warning


def test_a_batch_normalisation_that_still_learns_is_named():
    teacher = Linear()
    teacher.predict = lambda images: softmax(teacher.logits(images) - teacher.logits(images).mean(0))
    (warning,) = try_teacher(teacher, SHAPE, 50).warnings
    assert "depends on the images beside it" in warning


def test_dropout_that_is_still_active_is_named():
    teacher, source = Linear(), np.random.default_rng(1)
    teacher.predict = lambda images: softmax(teacher.logits(images) + source.normal(0, 3, (len(images), 4)))
    (warning,) = try_teacher(teacher, SHAPE, 50).warnings
    assert "asked twice about one image" in warning


def test_a_pass_that_would_take_minutes_is_tried_in_part_and_the_owner_is_told(monkeypatch):
    monkeypatch.setattr(trial_module, "_LONGEST_S", 0.0)
    found = try_teacher(Linear(), SHAPE, 500)
    assert found.batch_size == 8
    assert "only 8 were tried: set service.batch_size: 8" in found.warnings[0]


def test_invented_images_are_the_same_each_time_and_unlike_each_other():
    images = invented_images(20, SHAPE)
    assert images.shape == (20, *SHAPE)
    assert images.dtype == np.uint8
    assert (images[3:9] == invented_images(6, SHAPE, 3)).all()
    unlike = {image.tobytes() for image in images}
    assert len(unlike) == 20 - 4  # black and white come three times each
    assert images.min() == 0
    assert images.max() == 255
    for shape in ((1, 1, 1), (3, 2, 7)):
        assert invented_images(9, shape).shape == (9, *shape)
