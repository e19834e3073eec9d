# SPDX-License-Identifier: Apache-2.0
"""Copies are found, honest generators are not accused, and hubs deceive nobody."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import kstest, mannwhitneyu

from fedcpsc.audit.copying import copy_test, neighbour_test, pixel_features, scattering_features
from fedcpsc.data.sources import load_train
from fedcpsc.errors import AuditError
from fedcpsc.silo_config import DataConfig

DIMENSIONS = 8


def drawn(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two clusters, as two classes would be."""
    return rng.normal(size=(count, DIMENSIONS)) + 4.0 * rng.integers(0, 2, (count, 1))


def test_pixels_are_their_own_features_and_a_copy_is_at_distance_nothing():
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8)
    features = pixel_features(images)
    assert features.shape == (50, 192)
    assert (features[7] == images[7].ravel()).all()
    found = copy_test(features, features + 1.0, features)  # all equally far, and not at all
    assert found.z == pytest.approx(-25 / np.sqrt(101 / 12 - (2 * 50**3 - 2 * 50) / (12 * 100 * 99)))


@pytest.mark.parametrize("cells", [1, 4])
def test_without_copying_z_is_standard_normal(cells):
    """Kolmogorov-Smirnov over 100 data sets; a false alarm has probability 1e-5."""
    rng, found = np.random.default_rng(), []
    for _ in range(100):
        training, held_out, generated = (drawn(count, rng) for count in (200, 150, 150))
        found.append(copy_test(training, held_out, generated, cells=cells, least=10))
    assert kstest([test.z for test in found], "norm").pvalue > 1e-5
    assert kstest([test.p_value for test in found], "uniform").pvalue > 1e-5


def test_one_copy_in_five_is_found_and_images_far_from_all_are_told_apart():
    rng = np.random.default_rng(1)
    training, held_out = drawn(500, rng), drawn(500, rng)
    copies = np.concatenate([drawn(400, rng), training[:100] + 0.01 * rng.normal(size=(100, DIMENSIONS))])
    assert copy_test(training, held_out, drawn(500, rng)).p_value > 1e-3
    found = copy_test(training, held_out, copies)
    assert found.c_t == found.z < -3
    assert found.p_value == found.worst_p_value < 0.001
    assert copy_test(training, held_out, training + 0.05).z < -20
    far = copy_test(training, held_out, drawn(500, rng) * 3)
    assert far.z > 10
    assert far.p_value > 0.99


def test_copying_in_one_cell_is_not_hidden_by_variety_in_the_other():
    rng = np.random.default_rng(2)
    training, held_out, made = drawn(600, rng), drawn(600, rng), drawn(600, rng)
    low = made.mean(1) < 2
    made[low] = training[training.mean(1) < 2][: low.sum()] + 0.3  # near copies
    made[~low] += 2 * rng.normal(size=(int((~low).sum()), DIMENSIONS))  # blurred: farther than real images
    found = copy_test(training, held_out, made, cells=2)
    assert sorted(np.sign(found.by_cell)) == [-1, 1]
    assert found.worst_p_value < 1e-6
    share = (held_out.mean(1) < 2).mean()
    assert found.c_t == pytest.approx(share * min(found.by_cell) + (1 - share) * max(found.by_cell))
    assert found.z == pytest.approx(found.c_t / np.hypot(share, 1 - share))
    assert min(found.p_value, copy_test(training, held_out, made).p_value) > 0.01  # both means hide it


def test_z_is_mann_whitneys_with_ties():
    rng = np.random.default_rng(3)
    training = np.zeros((1, 1))
    real, made = rng.integers(0, 5, (40, 1)).astype(float), rng.integers(1, 6, (60, 1)).astype(float)
    found = copy_test(training, real, made)
    expected = mannwhitneyu(made[:, 0], real[:, 0], alternative="less", method="asymptotic", use_continuity=False)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_neighbours_under_the_null_are_as_often_private_as_chance_has_it():
    """p-values of 200 data sets are uniform, hubs or not; a false alarm has probability 1e-5."""
    rng, found = np.random.default_rng(), []
    for _ in range(200):
        private, held_out = drawn(60, rng), drawn(40, rng)
        noise = rng.normal(size=(150, DIMENSIONS)) * 50 + 2  # far from all: a few images are nearest to most
        found.append(neighbour_test(private, held_out, noise, rng, permutations=199))
    assert all(test.expected == 0.6 for test in found)
    assert kstest([test.p_value - rng.uniform(0, 1 / 200) for test in found], "uniform").pvalue > 1e-5
    shares = np.array([test.share for test in found])
    naive = np.abs(shares - 0.6) / np.sqrt(0.24 / 150)
    assert (naive > 2.58).mean() > 0.05  # what a binomial test would call significant at 1 %


def test_copies_have_private_neighbours():
    rng = np.random.default_rng(4)
    private, held_out = drawn(300, rng), drawn(300, rng)
    made = np.concatenate([private[:120], drawn(180, rng)])
    found = neighbour_test(private, held_out, made, rng)
    assert found.share > 0.65
    assert found.p_value < 0.001
    assert found.z > 4
    assert found.neighbours > 100


def test_the_share_and_its_spread_are_what_they_should_be():
    """Four generated images at two pool images: share 3/4; over permutations 0, 1/4, 3/4, 1 with 1/6, 1/3, 1/3, 1/6."""
    private, held_out = np.array([[0.0], [10.0]]), np.array([[20.0], [30.0]])
    made = np.array([[1.0], [1.0], [-1.0], [21.0]])
    found = neighbour_test(private, held_out, made, np.random.default_rng(0), permutations=20_000)
    assert (found.share, found.expected, found.neighbours) == (0.75, 0.5, 2)
    spread = np.sqrt(2 / 6 * 0.5**2 + 2 / 3 * 0.25**2)
    assert found.z == pytest.approx(0.25 / spread, rel=0.02)
    assert found.p_value == pytest.approx(1 / 2, abs=0.015)


def test_scattering_sees_copies_that_were_moved_by_a_pixel_and_pixels_do_not():
    images = load_train(DataConfig(train_limit=400), 1).images
    private, held_out = images[:200], images[200:]
    moved = np.roll(private, 1, axis=3)
    stream = torch.random.get_rng_state()
    features = [scattering_features(part) for part in (private, held_out, moved)]
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert features[0].shape == (200, 81 * 4)
    assert np.allclose(scattering_features(private, batch_size=7), features[0], atol=1e-5)
    found = neighbour_test(*features, np.random.default_rng(0))
    assert found.share > 0.8
    assert found.p_value < 0.001
    assert copy_test(*features).p_value < 0.01
    pixels = [pixel_features(part) for part in (private, held_out, moved)]
    assert neighbour_test(*pixels, np.random.default_rng(0)).p_value > 0.01
    assert copy_test(*pixels).p_value > 0.01


def test_memory_grows_with_the_images_not_with_their_pairs():
    rng = np.random.default_rng(5)
    many, few = rng.normal(size=(6000, 4)), rng.normal(size=(3000, 4))
    tracemalloc.start()
    copy_test(many, few, few)
    neighbour_test(many, few, few, rng, permutations=99)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6000 * 3000 * 8 / 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: copy_test(a, b, b[:, :3]), "features="),
        (lambda a, b: copy_test(a, b, b[:0]), "features="),
        (lambda a, b: copy_test(a, b, b[:10]), "no cell of 1 holds 20 of both"),
        (lambda a, b: copy_test(a, b, b, cells=0), "cells, least="),
        (lambda a, b: neighbour_test(a, b, b, np.random.default_rng(0), permutations=50), "permutations=50"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    rng = np.random.default_rng(6)
    with pytest.raises(AuditError, match=message):
        call(drawn(30, rng), drawn(30, rng))
