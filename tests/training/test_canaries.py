# SPDX-License-Identifier: Apache-2.0
"""Canaries: fair coins, wrong labels, at most one training record for each private one, a file for the owner only."""

import os
from collections import Counter
from dataclasses import replace
from functools import reduce
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2, chisquare, norm

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import load_silo_train
from fedcpsc.data.units import record_ids, unit_numbers
from fedcpsc.errors import ConfigError, DataError, ManifestError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.privacy.accounting import gaussian_mu
from fedcpsc.protocol.messages import DescribeRequest, Description
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import dataset_id, load_manifest
from fedcpsc.teachers.proof import DpSgdProof, proof_of
from fedcpsc.training.canaries import (
    CANARIES_FILE,
    Canaries,
    canary_images,
    draw_canaries,
    load_canaries,
    planted,
    save_canaries,
)

FALSE_ALARM = 1e-6


def some(count: int, classes: int = 5, seed: int = 0, persons_of: int = 0) -> ImageSet:
    """Random images; with `persons_of`, so many consecutive ones of each person."""
    rng = np.random.default_rng(seed)
    persons = np.array([f"p{i // persons_of}" for i in range(count)]) if persons_of else None
    return ImageSet(rng.integers(0, 256, (count, 1, 4, 4), np.uint8), rng.integers(0, classes, count), classes, persons)


def test_coins_are_fair_labels_are_wrong_and_places_are_spread() -> None:
    """Each check alarms falsely with probability 1e-6."""
    images = some(8000)
    canaries = draw_canaries(images, 4000, 8000)
    assert binomtest(int(canaries.included.sum()), len(canaries)).pvalue > FALSE_ALARM
    shifts = (canaries.labels - images.labels[canaries.positions]) % 5
    assert chisquare(np.bincount(shifts, minlength=5)[1:]).pvalue > FALSE_ALARM
    assert not (shifts == 0).any()
    assert binomtest(int((canaries.positions < 4000).sum()), len(canaries)).pvalue > FALSE_ALARM
    runs = int((np.diff(canaries.included.astype(int)) != 0).sum())
    assert binomtest(runs, len(canaries) - 1).pvalue > FALSE_ALARM  # coins do not depend on their neighbours
    again = draw_canaries(images, 4000, 8000)
    assert not np.array_equal(again.included, canaries.included)


@pytest.mark.parametrize("persons_of", [0, 4])
def test_each_unit_is_a_canary_by_a_coin_of_its_own(persons_of: int) -> None:
    """Their number is binomial, with the public number in the rate: a sample of fixed size has no variance.

    400 drawings; each check alarms falsely with probability 1e-6.
    """
    images = some(400, persons_of=persons_of)
    units = 100 if persons_of else 400
    numbers = np.array([len(draw_canaries(images, 50, 200)) for _ in range(400)])
    assert binomtest(int(numbers.sum()), 400 * units, 0.25).pvalue > FALSE_ALARM
    spread = ((numbers - units / 4) ** 2).sum() / (units * 0.25 * 0.75)
    assert FALSE_ALARM < chi2.cdf(spread, 400) < 1 - FALSE_ALARM


@st.composite
def roles(draw: st.DrawFn) -> tuple[ImageSet, Canaries]:
    images = some(draw(st.integers(2, 30)), seed=draw(st.integers(0, 99)), persons_of=draw(st.integers(0, 3)))
    return images, draw_canaries(images, draw(st.integers(1, 15)), 30)


@given(roles(), st.data())
@settings(max_examples=50)
def test_a_unit_with_its_role_is_at_most_one_unit_of_the_training(
    case: tuple[ImageSet, Canaries], data: st.DataObject
) -> None:
    """And conditional on its role nobody else's share of the training moves: the premise of the proof."""
    images, canaries = case
    numbers = unit_numbers(images)
    out = data.draw(st.integers(0, int(numbers.max())))
    kept, places = numbers != out, np.cumsum(numbers != out) - 1
    stays = kept[canaries.positions]
    alive, units = np.unique(canaries.units[stays], return_inverse=True)
    fewer = Canaries(places[canaries.positions[stays]], canaries.labels[stays], units, canaries.included[alive], "")
    before, after = (
        Counter(_records(planted(images, canaries))),
        Counter(_records(planted(images.subset(np.flatnonzero(kept)), fewer))),
    )
    assert not after - before
    assert (before - after).total() in (0, int((~kept).sum()))  # the whole unit, or nothing of it


def test_a_person_is_a_canary_with_all_its_records_or_with_none() -> None:
    images = some(60, persons_of=3)
    canaries = draw_canaries(images, 10, 20)
    assert images.persons is not None
    trained = planted(images, canaries)
    assert trained.persons is not None
    assert len(canaries.positions) == 3 * len(canaries)
    for number, included in enumerate(canaries.included):
        (person,) = set(images.persons[canaries.positions[canaries.units == number]])
        assert (trained.persons == person).sum() == (3 if included else 0)
    assert (canaries.labels != images.labels[canaries.positions]).all()


Masses = dict[int, float]


def _sum_of(one: Masses, two: Masses) -> Masses:
    total: Masses = {}
    for (a, p), (b, q) in product(one.items(), two.items()):
        total[a + b] = total.get(a + b, 0.0) + p * q
    return total


def _mixture(*parts: tuple[float, Masses]) -> Masses:
    total: Masses = {}
    for weight, masses in parts:
        for value, p in masses.items():
            total[value] = total.get(value, 0.0) + weight * p
    return total


def _repeated(masses: Masses, times: int) -> Masses:
    return reduce(_sum_of, [masses] * times, {0: 1.0})


def _delta(one: Masses, two: Masses, sigma: float) -> float:
    """delta(1) of sums with Gaussian noise, in the worse direction: by quadrature in steps of sigma / 1000."""
    grid = np.arange(-40, 60, sigma / 1000)
    p, q = (sum(w * norm.pdf(grid, v, sigma) for v, w in masses.items()) for masses in (one, two))
    return max(float(np.maximum(a - np.e * b, 0).sum() * sigma / 1000) for a, b in ((p, q), (q, p)))


def test_independent_coins_keep_delta_and_a_sample_of_fixed_size_does_not() -> None:
    """20 records whose shares are summed and noised for (1, 1e-5); half of them canaries. Exact but for quadrature.

    A share lies in [-1, 1]: `a` of a record as it is, `b` mislabelled, 0 left out; `c` and `d` of the record more.
    """
    n, k, sigma = 20, 10, 1 / gaussian_mu(1.0, 1e-5)
    worst_coins = worst_sample = 0.0
    for a, b, c, d in [(1, -1, 1, 1), (1, 0, 1, 1), (1, -1, 0, 1), (1, -1, 1, -1), (0, 1, 1, 1), (1, 1, -1, -1)]:
        wrong, new_wrong = ({0: 0.5, share: 0.5} if share else {0: 1.0} for share in (b, d))
        everybody = _repeated(_mixture((0.5, {a: 1.0}), (0.5, wrong)), n)
        one_more = _sum_of(everybody, _mixture((0.5, {c: 1.0}), (0.5, new_wrong)))
        worst_coins = max(worst_coins, _delta(everybody, one_more, sigma))
        sample = _sum_of({a * (n - k): 1.0}, _repeated(wrong, k))
        displaced = _sum_of(_sum_of({a * (n - k + 1): 1.0}, _repeated(wrong, k - 1)), new_wrong)
        share = k / (n + 1)
        worst_sample = max(
            worst_sample, _delta(sample, _mixture((share, displaced), (1 - share, _sum_of(sample, {c: 1.0}))), sigma)
        )
    assert _delta({0: 1.0}, {1: 1.0}, sigma) == pytest.approx(1e-5, rel=1e-3)  # without canaries
    assert worst_coins <= 1e-5
    assert worst_sample > 5e-4  # 9e-4


def _records(images: ImageSet) -> list[bytes]:
    return record_ids(images.images, images.labels)


def test_the_training_sees_included_canaries_under_their_wrong_label_and_no_others() -> None:
    images = some(40)
    canaries = draw_canaries(images, 20, 40)
    trained, asked = planted(images, canaries), canary_images(images, canaries)
    assert len(trained) == 40 - (~canaries.included).sum()
    present = set(_records(trained))
    assert [record in present for record in _records(asked)] == canaries.included.tolist()
    honest = np.setdiff1d(np.arange(40), canaries.positions)
    assert set(_records(images.subset(honest))) <= present
    assert not set(_records(images.subset(canaries.positions))) & present


def test_canaries_in_other_images_are_refused() -> None:
    images = some(40)
    canaries = draw_canaries(images, 20, 40)
    for other in (images.subset(np.arange(40)[::-1]), some(40, seed=1), images.subset(np.arange(3))):
        with pytest.raises(DataError, match="are not those the canaries were planted in"):
            canary_images(other, canaries)


@pytest.mark.parametrize("count", [0, 6])
def test_more_than_half_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="at most half of 11"):
        draw_canaries(some(11), count, 11)
    with pytest.raises(ConfigError, match="needs 2 classes"):
        draw_canaries(some(11, classes=1), 5, 11)


def a_run(training: dict[str, object], **policy: object) -> RunConfig:
    tree = {
        "data": {"train_limit": 120, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}, "policy": policy},
        "teachers": {"width": 4, "epochs": 1, "training": training},
    }
    return RunConfig.model_validate(tree)


@pytest.mark.parametrize(
    "training", [{"kind": "plain"}, {"kind": "dp_sgd", "epsilon": 8.0, "records": 120}], ids=lambda t: t["kind"]
)
def test_a_silo_with_canaries(training: dict[str, object], tmp_path: Path) -> None:
    policy = {"mechanism": {"kind": "dp_sgd", "epsilon": 8.0}} if training["kind"] == "dp_sgd" else {}
    config = a_run(training | {"canaries": 40}, **policy)
    before = os.umask(0)  # the file is the owner's alone whatever the umask
    try:
        (report,) = make_silos(config, tmp_path)
    finally:
        os.umask(before)
    folder, images = tmp_path / "0", load_silo_train(config, 0)
    assert (folder / CANARIES_FILE).stat().st_mode & 0o777 == 0o600
    manifest = load_manifest(folder)
    canaries = load_canaries(folder, manifest)
    assert 9 <= len(canaries) <= 75  # 40 expected; outside with probability below 1e-9
    trained = planted(images, canaries)
    # size and counts are of what was trained on; the budget stays with the silo's data
    assert manifest.train_size == len(trained) == 120 - (~canaries.included).sum()
    assert manifest.private_class_counts == tuple(np.bincount(trained.labels, minlength=10).tolist())
    assert manifest.dataset_id == dataset_id(images.images, images.labels)
    assert report.train_size == 120
    proof = proof_of(manifest)
    assert training["kind"] == "plain" or (isinstance(proof, DpSgdProof) and proof.records == 120)
    gatekeeper = open_gatekeeper(folder)
    described = gatekeeper.describe(DescribeRequest())
    gatekeeper.close()
    assert isinstance(described, Description)
    assert described.claim.dp == (training["kind"] == "dp_sgd")
    assert make_silos(config, tmp_path)[0].reused
    # a teacher without canaries takes their file away
    make_silos(a_run({"kind": "plain"}), tmp_path)
    with pytest.raises(ManifestError, match="train the teacher with teachers.training.canaries"):
        load_canaries(folder, load_manifest(folder))


def test_a_plan_without_canaries_is_the_plan_from_before_there_were_any(tmp_path: Path) -> None:
    """Otherwise every DP-SGD teacher would be trained, and paid for, again."""
    make_silos(a_run({"kind": "plain"}), tmp_path)
    assert "canaries" not in load_manifest(tmp_path / "0").training
    assert make_silos(a_run({"kind": "plain", "canaries": 0}), tmp_path)[0].reused


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format_version": 2', '"format_version": 1', "a sample of fixed size"),
        ('"format_version": 2', '"format_version": 3', "is damaged"),
        ('"units": [', '"units": [99, ', "is damaged"),
        ('"weights_sha256": "', '"weights_sha256": "0', "belong to another teacher"),
        ('"labels": [', '"labels": [7, ', "is damaged"),
        ('"positions": [', '"positions": [19, ', "is damaged"),
        ("{", "", "is damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    make_silos(a_run({"kind": "plain", "canaries": 20}), tmp_path)
    manifest, path = load_manifest(tmp_path / "0"), tmp_path / "0" / CANARIES_FILE
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ManifestError, match=message):
        load_canaries(tmp_path / "0", manifest)


def test_places_that_do_not_rise_are_damage(tmp_path: Path) -> None:
    make_silos(a_run({"kind": "plain"}), tmp_path)
    manifest = load_manifest(tmp_path / "0")
    once = Canaries(np.array([3, 5]), np.array([0, 1]), np.array([0, 1]), np.array([True, False]), "")
    twice = replace(once, positions=once.positions[[0, 0]])
    save_canaries(twice, tmp_path / "0", manifest.weights_sha256)
    with pytest.raises(ManifestError, match="is damaged"):
        load_canaries(tmp_path / "0", manifest)


@pytest.mark.parametrize("persons_of", [0, 3])
@pytest.mark.parametrize("count", [15, 0])
def test_what_is_saved_is_loaded(count: int, persons_of: int, tmp_path: Path) -> None:
    """None at all, too: coins may say so."""
    images = some(30, persons_of=persons_of)
    canaries = draw_canaries(images.subset(np.arange(30 if count else 0)), 15, 30)
    make_silos(a_run({"kind": "plain"}), tmp_path)
    manifest = load_manifest(tmp_path / "0")
    save_canaries(canaries, tmp_path / "0", manifest.weights_sha256)
    loaded = load_canaries(tmp_path / "0", manifest)
    for name in ("positions", "labels", "units", "included"):
        assert np.array_equal(getattr(loaded, name), getattr(canaries, name))
    assert loaded.records_sha256 == canaries.records_sha256
    assert len(canary_images(images, loaded)) == len(loaded.positions)
