"""Canaries: fair coins, wrong labels, at most one training record for each private one, a file for the owner only."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import load_silo_train
from fedcpsc.errors import ConfigError, DataError, ManifestError
from fedcpsc.gatekeeper.canaries import (
    CANARIES_FILE,
    Canaries,
    canary_images,
    draw_canaries,
    load_canaries,
    planted,
    save_canaries,
)
from fedcpsc.gatekeeper.gatekeeper import open_gatekeeper
from fedcpsc.gatekeeper.manifest import dataset_id, load_manifest
from fedcpsc.gatekeeper.proof import DpSgdProof, proof_of
from fedcpsc.gatekeeper.sharding import record_ids
from fedcpsc.gatekeeper.silos import make_silos
from fedcpsc.protocol.messages import DescribeRequest, Description

FALSE_ALARM = 1e-6


def some(count: int, classes: int = 5, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, 1, 4, 4), np.uint8), rng.integers(0, classes, count), classes)


def test_coins_are_fair_labels_are_wrong_and_places_are_spread() -> None:
    """Each check alarms falsely with probability 1e-6."""
    images = some(8000)
    canaries = draw_canaries(images, 4000)
    assert len(canaries) == 4000
    assert binomtest(int(canaries.included.sum()), 4000).pvalue > FALSE_ALARM
    shifts = (canaries.labels - images.labels[canaries.positions]) % 5
    assert chisquare(np.bincount(shifts, minlength=5)[1:]).pvalue > FALSE_ALARM
    assert not (shifts == 0).any()
    assert binomtest(int((canaries.positions < 4000).sum()), 4000).pvalue > FALSE_ALARM  # hypergeometric: narrower
    runs = int((np.diff(canaries.included.astype(int)) != 0).sum())
    assert binomtest(runs, 3999).pvalue > FALSE_ALARM  # coins do not depend on their neighbours
    again = draw_canaries(images, 4000)
    assert not np.array_equal(again.included, canaries.included)


@st.composite
def roles(draw: st.DrawFn) -> tuple[ImageSet, Canaries]:
    images = some(draw(st.integers(2, 30)), seed=draw(st.integers(0, 99)))
    return images, draw_canaries(images, draw(st.integers(1, len(images) // 2)))


@given(roles(), st.data())
@settings(max_examples=50)
def test_a_private_record_is_at_most_one_record_of_the_training(
    case: tuple[ImageSet, Canaries], data: st.DataObject
) -> None:
    images, canaries = case
    before = Counter(_records(planted(images, canaries)))
    out = data.draw(st.integers(0, len(images) - 1))
    kept = np.arange(len(images)) != out
    stays = canaries.positions != out
    positions = canaries.positions[stays]
    fewer = Canaries(positions - (positions > out), canaries.labels[stays], canaries.included[stays], "")
    after = Counter(_records(planted(images.subset(kept.nonzero()[0]), fewer)))
    assert not after - before
    assert (before - after).total() <= 1


def _records(images: ImageSet) -> list[bytes]:
    return record_ids(images.images, images.labels)


def test_the_training_sees_included_canaries_under_their_wrong_label_and_no_others() -> None:
    images = some(40)
    canaries = draw_canaries(images, 20)
    trained, asked = planted(images, canaries), canary_images(images, canaries)
    assert len(trained) == 20 + canaries.included.sum()
    present = set(_records(trained))
    assert [record in present for record in _records(asked)] == canaries.included.tolist()
    honest = np.setdiff1d(np.arange(40), canaries.positions)
    assert set(_records(images.subset(honest))) <= present
    assert not set(_records(images.subset(canaries.positions))) & present


def test_canaries_in_other_images_are_refused() -> None:
    images = some(40)
    canaries = draw_canaries(images, 20)
    for other in (images.subset(np.arange(40)[::-1]), some(40, seed=1), images.subset(np.arange(3))):
        with pytest.raises(DataError, match="are not those the canaries were planted in"):
            canary_images(other, canaries)


@pytest.mark.parametrize("count", [0, 6])
def test_more_than_half_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="at most half of 11"):
        draw_canaries(some(11), count)


def a_run(training: dict[str, object], **policy: object) -> RunConfig:
    tree = {
        "data": {"train_limit": 120, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}, "policy": policy},
        "teachers": {"width": 4, "epochs": 1, "training": training},
    }
    return RunConfig.model_validate(tree)


@pytest.mark.parametrize("training", [{"kind": "plain"}, {"kind": "dp_sgd", "epsilon": 8.0}], ids=lambda t: t["kind"])
def test_a_silo_with_canaries(training: dict[str, object], tmp_path: Path) -> None:
    policy = {"mechanism": {"kind": "dp_sgd", "epsilon": 8.1}} if training["kind"] == "dp_sgd" else {}
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
    assert len(canaries) == 40
    trained = planted(images, canaries)
    # n and the counts are of what was trained on; the budget stays with the silo's data
    assert manifest.train_size == len(trained) == 80 + canaries.included.sum()
    assert manifest.private_class_counts == tuple(np.bincount(trained.labels, minlength=10).tolist())
    assert manifest.dataset_id == dataset_id(images.images, images.labels)
    assert report.train_size == 120
    proof = proof_of(manifest)
    assert training["kind"] == "plain" or (isinstance(proof, DpSgdProof) and proof.n == len(trained))
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
    once = draw_canaries(some(30), 2)
    twice = replace(once, positions=once.positions[[0, 0]])
    save_canaries(twice, tmp_path / "0", manifest.weights_sha256)
    with pytest.raises(ManifestError, match="is damaged"):
        load_canaries(tmp_path / "0", manifest)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    canaries = draw_canaries(some(30), 15)
    make_silos(a_run({"kind": "plain"}), tmp_path)
    manifest = load_manifest(tmp_path / "0")
    save_canaries(canaries, tmp_path / "0", manifest.weights_sha256)
    loaded = load_canaries(tmp_path / "0", manifest)
    for name in ("positions", "labels", "included"):
        assert np.array_equal(getattr(loaded, name), getattr(canaries, name))
    assert loaded.records_sha256 == canaries.records_sha256
