# SPDX-License-Identifier: Apache-2.0
"""samples.png and curve.png: readable for ten classes and for a hundred."""

import time
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from fedcpsc.distillation.curve import save_curve
from fedcpsc.distillation.sample_sheet import save_samples


def asked(classes, shape=(1, 8, 8), each=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (classes * each, *shape), dtype=np.uint8)
    return images, np.eye(classes, dtype=np.float32)[np.arange(classes * each) % classes]


def pixels(path):
    """Brightness of a picture, [H, W]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


@pytest.mark.parametrize(
    ("classes", "widest", "highest"), [(2, 900, 300), (10, 900, 1100), (30, 900, 1600), (100, 1300, 2600)]
)
def test_the_sheet_of_samples_grows_in_both_directions(tmp_path, classes, widest, highest):
    begun = time.process_time()
    save_samples(tmp_path / "s.png", *asked(classes))
    assert time.process_time() - begun < 10  # one picture a subplot took a minute for a hundred classes
    height, width = pixels(tmp_path / "s.png").shape
    assert 600 < width <= widest
    assert height <= highest


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 20), (3, 224, 224)])
def test_images_of_any_size_and_colour_have_a_place(tmp_path, shape):
    images, targets = asked(3, shape)
    images[:] = 200
    save_samples(tmp_path / "s.png", images, targets, ["a $ sign", "名", "x" * 300])
    assert (pixels(tmp_path / "s.png") == 200).sum() >= 12 * 60 * 30


def test_of_a_thousand_classes_the_most_frequent_are_drawn(tmp_path):
    images, targets = asked(1000, each=1)
    save_samples(tmp_path / "s.png", images, targets)
    assert pixels(tmp_path / "s.png").shape[0] < 5000


def lines(*figures):
    rounds = [{"phase": "round", "answers_used": 100 * (i + 1), "student_accuracy": f} for i, f in enumerate(figures)]
    return [*rounds, rounds[-1] | {"phase": "final"}]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a curve: its figure and the path of the picture."""
    kept = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), real(figure, *a, **k))[1])

    def draw(*figures, references=None):
        save_curve(tmp_path / "c.png", lines(*figures), references or {})
        return kept[-1], tmp_path / "c.png"

    return draw


def test_the_curve_begins_at_zero_where_the_student_began_there_and_near_it_where_not(drawn):
    assert drawn(0.08, 0.9)[0].axes[0].get_ylim()[0] == 0
    high = drawn(0.85, 0.9)[0].axes[0]
    assert 60 < high.get_ylim()[0] < 85
    assert "axis begins at" in high.get_ylabel()


def test_each_line_of_the_curve_is_named_at_its_end_and_no_name_overlaps_another_or_is_cut(drawn):
    figure, path = drawn(0.5, 0.97, references={"ensemble of the silos": 0.972, "best single teacher": 0.968})
    names = figure.axes[0].texts
    assert len(names) == 4
    assert figure.axes[0].get_legend() is None
    figure.canvas.draw()  # places are those of the last drawing
    boxes = sorted((Text.get_window_extent(text) for text in names), key=lambda box: box.y0)
    assert all(upper.y0 >= lower.y1 - 1 for lower, upper in pairwise(boxes))
    edges = pixels(path)
    assert edges[:2].min() == edges[-2:].min() == edges[:, :2].min() == edges[:, -2:].min() == 255


def test_a_curve_of_nothing_but_a_final_fit_can_be_drawn(tmp_path):
    save_curve(tmp_path / "c.png", lines(0.5)[1:], {})
    assert (tmp_path / "c.png").stat().st_size > 1000
