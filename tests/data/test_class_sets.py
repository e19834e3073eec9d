# SPDX-License-Identifier: Apache-2.0
"""Silos whose classes are chosen by name: dealt in sets that may overlap, and all that their teachers know."""

import numpy as np
import pytest
from PIL import Image

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import iterate_silo_images, load_silo_train
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import ConfigError, DataError
from fedcpsc.typed_yaml import validate

SETS = [["2", "3", "5"], ["3", "5", "8"]]


def config(count=2, data=None, label_sets="own", **partition):
    partition = partition or {"kind": "class_sets", "class_sets": SETS}
    silos = {"count": count, "partition": partition, "label_sets": label_sets}
    return validate(RunConfig, {"data": {"classes": ["2", "3", "5", "8"], **(data or {})}, "silos": silos}, "test")


def test_each_silo_holds_its_classes_and_shares_the_common_ones_evenly():
    one, two = iterate_silo_images(config())
    whole = load_train(config().data, 1)
    assert (one.class_names, two.class_names) == (("2", "3", "5"), ("3", "5", "8"))
    assert (one.classes, set(one.labels.tolist())) == (3, {0, 1, 2})
    counts = np.bincount(whole.labels)
    assert len(one) + len(two) == len(whole), "none is left over"
    assert (one.labels == 0).sum() == counts[0], "the only holder has all"
    for name in ("3", "5"):
        shares = [(images.labels == images.class_names.index(name)).sum() for images in (one, two)]
        assert abs(shares[0] - shares[1]) <= 1
        assert sum(shares) == counts[whole.class_names.index(name)]
    seen = np.concatenate([one.images, two.images]).reshape(len(whole), -1)
    assert len(np.unique(seen, axis=0)) == len(np.unique(whole.images.reshape(len(whole), -1), axis=0))


def test_with_the_federations_label_sets_the_images_are_the_same():
    own, padded = (next(iterate_silo_images(config(label_sets=sets))) for sets in ("own", "federation"))
    np.testing.assert_array_equal(own.images, padded.images)
    assert padded.class_names == ("2", "3", "5", "8")
    names = np.array(own.class_names)[own.labels], np.array(padded.class_names)[padded.labels]
    np.testing.assert_array_equal(*names)


def test_only_the_chosen_classes_are_read_in_the_chosen_order():
    data = config(data={"classes": ["8", "2"]}).data
    chosen, held_out = load_train(data, 1), load_evaluation(data, 1)
    assert chosen.class_names == held_out.class_names == ("8", "2")
    everything = validate(RunConfig, {}, "test").data
    whole = [load_train(everything, 1), load_evaluation(everything, 1)]
    for number, digit in enumerate((8, 2)):
        wanted = sum(int((images.labels == digit).sum()) for images in whole)
        assert sum(int((images.labels == number).sum()) for images in (chosen, held_out)) == wanted


def test_three_silos_take_the_sets_in_turn():
    parts = list(iterate_silo_images(config(count=3)))
    assert [images.class_names for images in parts] == [("2", "3", "5"), ("3", "5", "8"), ("2", "3", "5")]


def test_pathological_silos_may_know_their_own_classes_alone():
    parts = list(iterate_silo_images(config(data={"classes": None}, count=5, kind="pathological", classes_per_silo=2)))
    assert sorted(name for images in parts for name in images.class_names) == list("0123456789")
    assert all(images.classes == 2 for images in parts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"classes": ["2", "x"]}}, "data.classes='x': is no class of"),
        ({"data": {"classes": ["2"]}}, "two classes or more"),
        ({"data": {"classes": ["2", "2"]}}, "two classes or more, each once"),
        ({"data": {"classes": None}}, "no silo holds this class"),
        ({"kind": "class_sets", "class_sets": [["2", "9"], ["3", "5", "8"]]}, "'9' is no class of the data"),
        ({"kind": "class_sets", "class_sets": [["2", "2"], ["3", "5", "8"]]}, "names a class twice"),
        ({"kind": "class_sets"}, "needs it"),
        ({"kind": "iid", "class_sets": [["2"]]}, "belongs to kind: class_sets"),
        ({"kind": "dirichlet"}, "silos.label_sets='own': by partition dirichlet single records"),
        ({"kind": "own_files"}, "data.classes=.*own files"),
        ({"kind": "class_sets", "class_sets": [["2"], ["3", "5", "8"]]}, r"silo 0 has 1 class\(es\)"),
    ],
)
def test_what_cannot_be_dealt_is_explained(changes, message):
    with pytest.raises((ConfigError, DataError), match=message):
        list(iterate_silo_images(config(**changes)))


def folders(root, names):
    for number, own in enumerate(names):
        for name in own:
            folder = root / str(number) / "train" / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(folder / f"{i}.png")


def of_folders(root, label_sets):
    data = {"source": "folder", "path": str(root), "channels": 1}
    silos = {"count": 2, "partition": {"kind": "own_files"}, "label_sets": label_sets}
    return validate(RunConfig, {"data": data, "silos": silos}, "test")


def test_own_files_with_other_folders_are_each_silos_own_classes(tmp_path):
    folders(tmp_path, [("ant", "bee"), ("bee", "cat")])
    own = of_folders(tmp_path, "own")
    assert [images.class_names for images in iterate_silo_images(own)] == [("ant", "bee"), ("bee", "cat")]
    with pytest.raises(DataError, match=r"numbers its classes otherwise.*silos\.label_sets: own"):
        list(iterate_silo_images(of_folders(tmp_path, "federation")))
    alone = [load_silo_train(of_folders(tmp_path, "federation"), silo).class_names for silo in (0, 1)]
    assert alone == [("ant", "bee"), ("bee", "cat")], "an owner alone cannot see the others, but tells the names"


def test_an_empty_folder_of_own_files_is_a_class_that_its_owner_names(tmp_path):
    folders(tmp_path, [("ant", "bee"), ("bee", "cat")])
    (tmp_path / "0" / "train" / "cow").mkdir()
    first = next(iterate_silo_images(of_folders(tmp_path, "own")))
    assert first.class_names == ("ant", "bee", "cow"), "else the label set would show whether it has a picture"


def test_a_set_of_images_has_as_many_names_as_classes():
    with pytest.raises(DataError, match="class_names"):
        ImageSet(np.zeros((1, 1, 2, 2), np.uint8), np.zeros(1, np.int64), 2, class_names=("a",))
