# SPDX-License-Identifier: Apache-2.0
"""The manifest: what is written is read back, and nothing that does not fit passes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.errors import ManifestError
from fedcpsc.teachers.manifest import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    Normalisation,
    dataset_id,
    load_manifest,
    read_weights,
    save_manifest,
    sha256_hex,
)

WEIGHTS = b"weights of a teacher"


def manifest(**changes) -> Manifest:
    fields = {
        "silo": "silo-0",
        "architecture": "convnet",
        "width": 8,
        "classes": 3,
        "image_shape": (1, 8, 8),
        "normalisation": Normalisation(),
        "dataset_id": "ds-" + "a" * 64,
        "train_size": 6,
        "training": {"kind": "plain", "epochs": 2, "seed": 1},
        "weights_sha256": sha256_hex(WEIGHTS),
        "fingerprint": "b" * 64,
        "private_class_counts": (1, 2, 3),
    }
    return Manifest(**(fields | changes))


def test_saved_manifest_reloads_equal(tmp_path):
    written = manifest(privacy={"epsilon": 2.0, "delta": 1e-5, "relation": "add_remove"})
    save_manifest(written, tmp_path)
    assert load_manifest(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


def test_the_outputs_are_the_classes_and_one_more_for_none_of_these():
    named = manifest(class_names=("ant", "bee", "cat"), none_class=True)
    assert (manifest().outputs, named.outputs) == (3, 4)
    assert manifest().class_names is None


@pytest.mark.parametrize(
    "changes",
    [
        {"private_class_counts": (3, 3)},
        {"private_class_counts": (1, 2, 4)},
        {"private_class_counts": (-1, 4, 3)},
        {"image_shape": (0, 8, 8)},
        {"normalisation": {"mean": [0.5, 0.5], "std": [0.5]}},
        {"weights_sha256": "short"},
        {"dataset_id": "a" * 64},
        {"classes": 1, "private_class_counts": (6,)},
        {"kind": "pickle"},
        {"format_version": 3},
        {"population": "two\nlines"},
        {"silo": "two\nlines"},
        {"silo": "\x1b[2Jnorth"},
        {"population": ""},
        {"unit": "household"},
        {"origin": "found"},
        {"class_names": ["ant", "bee"]},
        {"class_names": ["ant", "bee", "Bee"]},
        {"class_names": ["ant", "bee", "cat\n"]},
        {"class_names": ["ant", "bee", 3]},
        {"none_class": "perhaps"},
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, tmp_path):
    tree = manifest().model_dump(mode="json")
    tree |= changes
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(tree))
    with pytest.raises(ManifestError, match=next(iter(changes))):
        load_manifest(tmp_path)


def test_standard_deviation_must_be_positive(tmp_path):
    tree = manifest().model_dump(mode="json")
    tree["normalisation"]["std"] = [0.0]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(tree))
    with pytest.raises(ManifestError, match=r"normalisation\.std"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00"])
def test_what_is_not_a_json_object_is_refused(text, tmp_path):
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ManifestError, match="manifest="):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace('"classes":', '"classes": 2, "classes":'), "the key 'classes' stands twice"),
        (lambda text: text[:-1] + ', "classes": 3}', "the key 'classes' stands twice"),
        (lambda text: text.replace('"classes":', '"width": NaN, "classes":'), "NaN is no number"),
        (lambda text: text.replace('"classes":', '"width": 1e999, "classes":'), "1e999 is too large"),
        (lambda text: text.replace('"classes":', '"width": ' + "[" * 100_000 + ', "classes":'), "nested too deeply"),
    ],
)
def test_a_manifest_that_may_be_read_in_two_ways_is_refused(tmp_path, damage, said):
    (tmp_path / MANIFEST_FILE).write_text(damage(json.dumps(manifest().model_dump(mode="json"))))
    with pytest.raises(ManifestError, match=rf"manifest=.*{MANIFEST_FILE}.*{said}.*fix the file"):
        load_manifest(tmp_path)


def test_missing_manifest_names_its_path(tmp_path):
    with pytest.raises(ManifestError, match=MANIFEST_FILE):
        load_manifest(tmp_path)


def test_unknown_key_names_the_nearest(tmp_path):
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest().model_dump(mode="json") | {"architectur": 1}))
    with pytest.raises(ManifestError, match="architectur: unknown key; the nearest valid one is 'architecture'"):
        load_manifest(tmp_path)


def test_weights_are_the_ones_the_manifest_speaks_of(tmp_path):
    (tmp_path / WEIGHTS_FILE).write_bytes(WEIGHTS)
    assert read_weights(tmp_path, manifest()) == WEIGHTS
    (tmp_path / WEIGHTS_FILE).write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(ManifestError, match="SHA-256"):
        read_weights(tmp_path, manifest())
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ManifestError, match="cannot be read"):
        read_weights(tmp_path, manifest())


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_dataset_id_depends_on_the_records_and_not_on_their_order(seed, count):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, 3, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, count)
    order = rng.permutation(count)
    original = dataset_id(images, labels)
    assert dataset_id(images[order], labels[order]) == original
    changed = images.copy()
    changed[rng.integers(count), 0, 0, 0] ^= 1
    assert dataset_id(changed, labels) != original
    relabelled = labels.copy()
    relabelled[rng.integers(count)] += 1
    assert dataset_id(images, relabelled) != original
    assert dataset_id(images[:-1], labels[:-1]) != original
    assert dataset_id(images.reshape(count, 1, 9, 1), labels) != original


def test_dataset_id_is_stable_across_versions():
    images = np.arange(18, dtype=np.uint8).reshape(2, 1, 3, 3)
    found = dataset_id(images, np.array([0, 1]))
    assert found == "ds-cea9f412549377777a89b0f49bc5d44d0aab10c7d0881141da94197a89950f7a"


def test_reading_a_manifest_imports_no_torch():
    code = "import sys, fedcpsc.teachers.manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
