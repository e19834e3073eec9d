# SPDX-License-Identifier: Apache-2.0
"""Query images are large enough to see, whatever their size and however many classes there are."""

import base64
import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from fedcpsc.report.blocks import Folded, Gallery
from fedcpsc.report.query_pictures import query_blocks


@dataclass
class Names:
    names: tuple[str, ...] | None


@dataclass
class FakeBank:
    """So much of a bank as the pictures look at: every image answered in round 0."""

    images: np.ndarray
    targets: np.ndarray
    names: tuple[str, ...] | None = None
    batches: tuple = field(init=False)

    def __post_init__(self):
        self.image_shape, self.classes = self.images.shape[1:], self.targets.shape[1]
        self.label_sets = Names(self.names)
        self.batches = (type("Batch", (), {"round": 0, "heard": ("silo",)})(),)

    def answered_rows(self, rounds):
        return np.arange(len(self.images))


def bank(classes, shape, each=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (classes * each, *shape), dtype=np.uint8)
    targets = np.eye(classes, dtype=np.float32)[np.arange(classes * each) % classes] * 0.9
    return FakeBank(images, targets)


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (3, 32, 20), (1, 64, 64), (3, 224, 224)])
def test_an_image_of_any_size_and_colour_is_shown_at_about_the_same_size(shape):
    gallery = next(iter(query_blocks(bank(3, shape))))
    for card in gallery.cards:
        drawn = picture(card.picture)
        assert drawn.size == card.size
        assert 120 <= max(drawn.size) <= 200
        assert drawn.mode == ("LA" if shape[0] == 1 else "RGBA")


def test_a_small_images_pixel_is_a_square_of_one_colour():
    small = bank(1, (1, 8, 8), each=1)
    drawn = np.asarray(picture(next(iter(query_blocks(small))).cards[0].picture))[:64, :64, 0]
    squares = drawn.reshape(8, 8, 8, 8).swapaxes(1, 2)
    assert (squares == squares[:, :, :1, :1]).all()
    assert (squares[:, :, 0, 0] == small.images[0, 0]).all()


def test_of_ten_classes_each_has_its_card_with_its_name_and_number():
    gallery = next(iter(query_blocks(bank(10, (1, 8, 8)))))
    assert [card.label for card in gallery.cards] == [f"class {k}" for k in range(10)]
    assert {card.note for card in gallery.cards} == {"8 images"}


def test_of_a_hundred_classes_a_screenful_is_shown_and_the_others_are_behind_a_fold():
    shown = list(query_blocks(bank(100, (1, 8, 8))))
    assert len(shown[0].cards) == 25
    assert "the 25 most frequent of 100 classes" in shown[0].caption
    (others,) = [block for block in shown if isinstance(block, Folded) and isinstance(block.blocks[0], Gallery)]
    assert others.summary == "75 more classes"
    assert len(others.blocks[0].cards) == 75


def test_a_class_that_was_never_seen_has_an_empty_card_that_says_so():
    lonely = bank(2, (1, 8, 8))
    lonely.targets[:, 1], lonely.targets[:, 0] = 0, 1
    card = next(iter(query_blocks(lonely))).cards[1]
    assert (card.note, card.alt) == ("0 images", "no query image of class 1")
