# SPDX-License-Identifier: Apache-2.0
"""Folders of classes as people have them: hidden folders, other files, names; and the table that the owner sees."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.config import RunConfig
from fedcpsc.data.silo_images import iterate_silo_images, load_silo_train
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import DataError
from fedcpsc.silo_config import DataConfig
from fedcpsc.typed_yaml import validate


@pytest.fixture
def root(tmp_path):
    """20 ants and 20 bees, 6x6 grey."""
    write_folder(tmp_path / "train", pictures(40), ["ant", "bee"] * 20, ["ant", "bee"])
    return tmp_path


def load(root, **changes):
    return load_train(DataConfig(source="folder", path=str(root), **changes), 1)


def put(root, name: str, data: bytes = b"?") -> None:
    path = root / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".cache"])
def test_hidden_folders_are_no_classes(root, hidden):
    (root / "train" / hidden).mkdir()  # an empty one first
    assert load(root).class_names == ("ant", "bee")
    for i in range(3):
        put(root, f"{hidden}/{i}.png", png(pictures(1)[0]))
    put(root, f"bee/{hidden}/copy.png", png(pictures(1)[0]))
    put(root, "ant/._000.png")
    train = load(root)
    assert train.class_names == ("ant", "bee")
    assert np.bincount(train.labels).tolist() == [14, 14]
    (left_out,) = train.reading.left_out
    assert (left_out.reason, left_out.count) == ("file(s) hidden, or in a hidden folder", 5)
    assert f"{hidden}/0.png" in left_out.examples
    assert load_evaluation(DataConfig(source="folder", path=str(root)), 1).class_names == ("ant", "bee")


@pytest.mark.parametrize("end", [".gif", ".jfif", ".webp", ".tiff", ".BMP", ".jp2", ".Png"])
def test_every_form_of_picture_is_taken_whatever_its_extensions_case(tmp_path, end):
    write_folder(tmp_path / "train", pictures(20), ["ant"] * 20, ["ant"])
    for i, pixels in enumerate(pictures(20, seed=1)):
        path = tmp_path / "train" / "bee" / f"{i}{end}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    train = load(tmp_path, channels=1)
    assert np.bincount(train.labels).tolist() == [14, 14]


def test_files_that_are_no_pictures_are_counted_and_named(root):
    for name in ("ant/notes.txt", "bee/scan.heic", "bee/scan.dcm", "bee/Thumbs.db", "readme.md", "lone.png"):
        put(root, name)
    left_out = {item.reason: item for item in load(root).reading.left_out}
    assert left_out["file(s) not a picture, by its extension"].count == 4
    assert left_out["file(s) beside the folders of classes"].examples == ("lone.png", "readme.md")


def test_a_class_with_files_of_which_none_is_a_picture_is_refused(root):
    for i in range(3):
        put(root, f"cat/{i}.heic")
        put(root, f"dog/{i}")
    with pytest.raises(DataError, match=r"none is a picture that can be read: cat \(3 \.heic\), dog \(3 no exten"):
        load(root)


@pytest.mark.parametrize("file", [None, ".gitkeep", ".DS_Store", "Thumbs.db"])
def test_an_empty_class_is_a_class_that_this_silo_has_no_picture_of(root, file):
    (root / "train" / "cat").mkdir()
    if file:
        put(root, f"cat/{file}")
    train = load(root)
    assert train.class_names == ("ant", "bee", "cat")
    assert train.reading.counts == (14, 14, 0)


def test_pictures_in_folders_below_their_class_are_of_it_and_that_is_said(root):
    put(root, "ant/summer/a.png", png(pictures(1)[0]))
    train = load(root)
    assert len(train.labels) + 12 >= 40
    assert "1 lie in folders below their class's own, and are of that class" in train.reading.notes


def test_links_in_a_circle_and_links_to_nothing_are_left_out(root):
    os.symlink(root / "train" / "ant", root / "train" / "ant" / "again")
    os.symlink(root / "nowhere.png", root / "train" / "ant" / "broken.png")
    os.mkfifo(root / "train" / "bee" / "pipe.png")
    left_out = {item.reason: item.count for item in load(root).reading.left_out}
    assert left_out == {"file(s) in a folder that links to one above it": 1, "file(s) no file, or a link to none": 2}


def test_deep_folders_are_no_trouble(root):
    deep = root / "train" / "ant"
    for _ in range(1050):  # more than Python's calls may nest
        deep /= "d"
        deep.mkdir()
    (deep / "x.png").write_bytes(png(pictures(1)[0]))
    try:
        assert "1 lie in folders below their class's own, and are of that class" in load(root).reading.notes
    finally:
        subprocess.run(["rm", "-rf", str(root / "train" / "ant" / "d")], check=True)  # pytest cannot


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_an_error(root):
    (root / "train" / "bee").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            load(root)
    finally:
        (root / "train" / "bee").chmod(0o700)


def test_folders_of_numbers_are_told_in_the_order_of_the_outputs(tmp_path):
    names = [str(k) for k in range(11)]
    write_folder(tmp_path / "train", pictures(88), names * 8, names)
    train = load(tmp_path)
    assert train.class_names == ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9")
    lines = list(train.reading.lines())
    assert "       2  10          6" in lines
    assert "  note: the classes' names are ordered as text, not as numbers: output 2 is class 10" in lines


@pytest.mark.parametrize(("one", "other"), [("Ant", "ant"), ("an t", "ant"), ("café", "cafe\u0301")])
def test_names_that_are_too_alike_are_refused(tmp_path, one, other):
    write_folder(tmp_path / "train", pictures(4), [one, other] * 2, [one, other])
    if len(list((tmp_path / "train").iterdir())) < 2:
        pytest.skip("this file system takes them for one")
    with pytest.raises(DataError, match="differs from .* by case or space alone; put both into one folder, or rename"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "x" * 101])
def test_names_that_cannot_be_shown_are_refused_and_shown_escaped(tmp_path, name):
    write_folder(tmp_path / "train", pictures(4), ["ant", name] * 2, ["ant", name])
    with pytest.raises(DataError, match=r"class_names=.*must be 1 to 100 printable characters") as error:
        load(tmp_path)
    assert str(error.value).isprintable()


def test_one_letter_in_two_encodings_is_one_class_in_both_splits(tmp_path):
    write_folder(tmp_path / "train", pictures(4), ["café", "tea"] * 2, ["café", "tea"])
    write_folder(tmp_path / "test", pictures(1), ["cafe\u0301"], ["cafe\u0301"])
    config = DataConfig(source="folder", path=str(tmp_path))
    assert load_evaluation(config, 1).labels.tolist() == [0]


def test_other_folders_than_train_and_test_are_named(root):
    (root / "validation").mkdir()
    assert "folders beside train/ and test/ are not read: validation" in load(root).reading.notes


def test_the_table_is_bounded_however_many_classes_there_are(tmp_path):
    names = [f"class-{k:03}" for k in range(100)]
    write_folder(tmp_path / "train", pictures(200), names * 2, names)
    lines = list(load(tmp_path, test_share=0.4).reading.lines())
    assert lines[0] == f"images to train on: 100 in 100 classes, from {tmp_path}/train"
    assert "  and 70 classes more, 0 of them empty: 70" in lines
    assert len(lines) < 40


def test_the_table_lists_sizes_and_what_became_of_them(tmp_path):
    write_folder(tmp_path / "train", pictures(6), ["a", "b"] * 3, ["a", "b"])
    for i, size in enumerate((7, 8, 9, 10, 11)):
        put(tmp_path, f"a/x{i}.png", png(pictures(1, size)[0]))
    (tmp_path / "test").mkdir()
    (sizes,) = (line for line in load(tmp_path, image_size=6).reading.lines() if line.startswith("  sizes"))
    assert (
        sizes == "  sizes: 6 of 6x6, 1 of 7x7, 1 of 8x8, 1 of 9x9, 2 of 2 other sizes (width x height), scaled to 6x6"
    )


class TestOwnFiles:
    def config(self, root, source="folder"):
        silos = {"count": 2, "partition": {"kind": "own_files"}}
        return validate(RunConfig, {"data": {"source": source, "path": str(root)}, "silos": silos}, "test")

    def test_each_silos_names_go_with_its_images(self, tmp_path):
        write_folder(tmp_path / "0" / "train", pictures(4), ["ant", "bee"] * 2, ["ant", "bee"])
        write_folder(tmp_path / "1" / "train", pictures(4), ["bee", "cat"] * 2, ["bee", "cat"])
        config = self.config(tmp_path)
        assert load_silo_train(config, 0).class_names == ("ant", "bee")
        assert load_silo_train(config, 1).class_names == ("bee", "cat")

    def test_classes_with_numbers_alone_have_no_names(self, tmp_path):
        for silo in "01":
            write_parquet(tmp_path / silo / "train.parquet", [png(p) for p in pictures(4)], [0, 1, 0, 1])
        images = load_silo_train(self.config(tmp_path, "parquet"), 0)
        assert images.class_names is None
        assert "the file names no classes: they have numbers alone" in images.reading.notes

    def test_a_silo_that_names_fewer_classes_gets_the_names_of_all(self, tmp_path):
        write_folder(tmp_path / "0" / "train", pictures(4), ["ant", "bee"] * 2, ["ant", "bee", "cat"])
        write_folder(tmp_path / "1" / "train", pictures(4), ["ant", "bee"] * 2, ["ant", "bee"])
        silos = list(iterate_silo_images(self.config(tmp_path)))
        assert [silo.class_names for silo in silos] == [("ant", "bee", "cat")] * 2
        assert [silo.classes for silo in silos] == [3, 3]
