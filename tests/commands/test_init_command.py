# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc init`: what it writes is a configuration that runs, from a look at the data, and nothing is overwritten."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.documented import ROOT
from support.picture_sources import pictures, png, write_parquet
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


class TestOwnFolders:
    """Folders of silos: none is left out without a word, and what is written makes all of them."""

    def clinics(self, tmp_path, numbers=(0, 1), **kind):
        for number in numbers:
            folder(tmp_path / "clinics" / str(number), **kind)
        return tmp_path / "clinics"

    @pytest.mark.parametrize(("numbers", "missing"), [((0, 1, 3, 4), 2), ((1, 2), 0)])
    def test_a_gap_in_their_numbers_is_refused(self, tmp_path, numbers, missing):
        said = init("x.yaml", "--data", self.clinics(tmp_path, numbers), code=1)
        there = ", ".join(map(str, numbers))
        assert f"0, 1, ... without a gap: {there} hold training pictures, and {missing} does not; rename" in said

    def test_folders_and_tables_together_are_refused(self, tmp_path):
        place = self.clinics(tmp_path, (0, 1))
        write_parquet(place / "2/train.parquet", [png(p) for p in pictures(4)], [0, 1] * 2, ["cat", "dog"])
        said = init("x.yaml", "--data", place, code=1)
        assert "silo 0 holds folder train/, and silo 2 train.parquet: one configuration reads all alike" in said
        for number in (0, 1):  # the one form that all have is taken
            write_parquet(place / f"{number}/train.parquet", [png(p) for p in pictures(4)], [0, 1] * 2, ["cat", "dog"])
        assert "12 training pictures of 3 silos with files of their own" in (said := init("x.yaml", "--data", place))
        assert "read as parquet" in said
        assert "note: silo 0: folders beside those of train and test are not read: train" in said

    def test_what_lies_beside_them_is_named(self, tmp_path):
        place = self.clinics(tmp_path)
        (place / "2").mkdir()
        folder(place / "third")
        said = init("x.yaml", "--data", place)
        assert "note: folders beside the silos' and test are not read: 2, third" in said

    def test_silos_with_other_classes_know_their_own(self, tmp_path):
        place = self.clinics(tmp_path, (0,), each=8)
        folder(place / "1", ("cat", "cow"), each=8)
        said = init("clinics.yaml", "--data", place)
        assert "in 3 classes (cat, dog, cow)" in said
        assert "the silos do not name the same classes in the same order: each teacher knows its own silo's" in said
        assert load_config("clinics.yaml").silos.label_sets == "own"
        done = runner.invoke(app, ["teachers", "clinics.yaml", "--set", "teachers.epochs=1"])
        assert done.exit_code == 0, done.output

    def test_unlike_classes_of_which_some_have_no_names_are_refused(self, tmp_path):
        place = tmp_path / "clinics"
        write_parquet(place / "0/train.parquet", [png(p) for p in pictures(4)], [0, 1] * 2, ["cat", "dog"])
        write_parquet(place / "1/train.parquet", [png(p) for p in pictures(4)], [0, 1] * 2)
        assert "names no classes, and another silo's files name theirs" in init("x.yaml", "--data", place, code=1)


def test_what_is_not_read_of_a_folder_is_told(tmp_path):
    place = folder(tmp_path / "pets")
    write_parquet(place / "train.parquet", [png(p) for p in pictures(4)], [0, 1] * 2)
    assert "note: parquet files beside train/ and test/ are not read: train.parquet" in init("x.yaml", "--data", place)


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
