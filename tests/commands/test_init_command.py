# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc init`: what it writes is a configuration that runs, from a look at the data, and nothing is overwritten."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.documented import ROOT
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.config import load_config
from fedcpsc.gatekeeper.policy import Policy

runner = CliRunner()


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def init(*words, code=0):
    done = runner.invoke(app, ["init", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def picture(path, size=(12, 12), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def folder(place, classes=("cat", "dog"), each=3, **kind):
    for name in classes:
        for number in range(each):
            picture(place / "train" / name / f"{number}.png", **kind)
    return place


def test_without_data_it_is_the_demo_and_says_what_to_do_next(tmp_path):
    said = init()
    config, demo = load_config("digits.yaml"), load_config(ROOT / "configs/digits.yaml")
    assert config == demo
    commands = ["fedcpsc teachers digits.yaml ", "fedcpsc run digits.yaml ", "fedcpsc status runs/digits "]
    assert [line.strip().partition("#")[0].strip() + " " for line in said.splitlines()[-3:]] == commands
    assert said.startswith("wrote digits.yaml\n")


def test_the_run_is_named_after_the_file_and_two_do_not_meet():
    init("my first run.yaml")
    init("sub/other.yml")
    first, other = load_config("my first run.yaml"), load_config("sub/other.yml")
    assert (first.output.name, first.silos.root) == ("my-first-run", "silos/my-first-run")
    assert (other.output.name, other.silos.root) == ("other", "silos/other")


def test_a_folder_takes_a_file_named_after_the_data(tmp_path):
    assert "wrote work/pets.yaml" in init("work", "--data", folder(tmp_path / "pets"))
    assert "'my run.yaml'" in init("my run.yaml")


@pytest.mark.parametrize("where", ["digits.yaml", "."])
def test_nothing_is_overwritten(tmp_path, where):
    (tmp_path / "digits.yaml").write_text("mine")
    assert "is there already, and is not overwritten; name another file" in init(where, code=2)
    assert (tmp_path / "digits.yaml").read_text() == "mine"


def test_a_file_that_is_no_configuration_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "name a folder, or a new file ending in .yaml" in init("notes.txt", code=2)


def test_folders_of_small_pictures_of_one_size_are_taken_as_they_are(tmp_path):
    said = init("pets.yaml", "--data", folder(tmp_path / "pets"))
    config = load_config("pets.yaml")
    assert (config.data.source, config.data.path) == ("folder", str(tmp_path / "pets"))
    assert (config.data.image_size, config.data.channels) == (None, None)
    assert (config.silos.count, config.silos.partition.kind) == (2, "iid")  # six pictures
    assert "6 training pictures in 2 classes (cat, dog), read as folder; no test split" in said
    assert "6 of them opened: 12x12 pixels (width x height), grey" in said
    assert Policy.model_validate(config.silos.policy).share_class_counts


def test_large_pictures_of_several_sizes_and_kinds_are_brought_to_one(tmp_path):
    place = folder(tmp_path / "pets", size=(64, 48))
    picture(place / "train/cat/colour.png", (40, 80), "RGB")
    (place / "test").mkdir()
    said = init("pets.yaml", "--data", place)
    config = load_config("pets.yaml")
    assert (config.data.image_size, config.data.channels) == (32, 3)
    assert "64x48 to 40x80 pixels (width x height), grey and colour" in said
    assert "; a test split" in said


def test_pictures_that_cannot_be_decoded_are_counted(tmp_path):
    place = folder(tmp_path / "pets")
    (place / "train/cat/broken.png").write_bytes(b"no picture")
    assert "1 of those cannot be decoded: fedcpsc teachers names them" in init("pets.yaml", "--data", place)
    for path in place.rglob("*.png"):
        path.write_bytes(b"no picture")
    assert "holds no picture that can be decoded, of 7 that were opened" in init("x.yaml", "--data", place, code=1)


def test_silos_with_folders_of_their_own_are_counted(tmp_path):
    for number in range(3):
        folder(tmp_path / "clinics" / str(number))
    said = init("clinics.yaml", "--data", tmp_path / "clinics")
    config = load_config("clinics.yaml")
    assert (config.silos.count, config.silos.partition.kind, config.evaluation.held_out) == (3, "own_files", False)
    assert "18 training pictures of 3 silos with files of their own" in said


def test_a_table_is_told_from_folders_and_many_pictures_are_dealt_unevenly(tmp_path):
    picture(tmp_path / "one.png", (8, 8))
    cell = {"bytes": (tmp_path / "one.png").read_bytes(), "path": None}
    table = {"image": [cell] * 700, "label": np.arange(700) % 10}
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(table), tmp_path / "set/train.parquet")
    said = init("set.yaml", "--data", tmp_path / "set")
    config = load_config("set.yaml")
    assert (config.data.source, config.silos.count, config.silos.partition.alpha) == ("parquet", 3, 0.5)
    assert "700 training pictures in 10 classes (0, 1, 2, 3, 4, ...), read as parquet" in said
    assert "200 of them opened" in said


@pytest.mark.parametrize(("data", "words"), [("nowhere", "is no folder"), (".", "holds no folder train/, or ")])
def test_a_folder_in_no_form_that_is_read_is_explained_and_nothing_is_written(tmp_path, data, words):
    said = init("x.yaml", "--data", data, code=1)
    assert words in said
    assert "data error: --data=" in said
    assert not (tmp_path / "x.yaml").exists()


def test_what_it_writes_makes_silos(tmp_path):
    place = folder(tmp_path / "pets", each=8)
    init("pets.yaml", "--data", place)
    done = runner.invoke(app, ["teachers", "pets.yaml", "--set", "teachers.epochs=1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "silos/pets/1/ledger.sqlite").exists()
