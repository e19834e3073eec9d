# SPDX-License-Identifier: Apache-2.0
"""Persons are read from where they are named, are never torn apart, and no record is without one unnoticed."""

import csv
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.partition import partition
from fedcpsc.data.silo_images import iterate_silo_images, load_silo_train
from fedcpsc.data.sources import held_out, load_evaluation, load_train
from fedcpsc.errors import ConfigError, DataError
from fedcpsc.silo_config import DataConfig, PartitionConfig, SilosConfig
from fedcpsc.typed_yaml import load_as, save_config, validate

COLUMN = {"kind": "column", "column": "patient"}
FILE = {"kind": "file", "file": "persons.csv"}


def parquet(root, persons=None, count=12, name="train.parquet", **changes):
    """`count` training images of 3 classes in turn, the column `patient` where given; 2 test images without persons."""
    write_parquet(root / name, [png(p) for p in pictures(count)], [i % 3 for i in range(count)], list("abc"))
    if persons is not None:
        persons = persons if isinstance(persons, pa.Array) else pa.array(persons)
        pq.write_table(pq.read_table(root / name).append_column("patient", persons), root / name)
    write_parquet(root / "test.parquet", [png(p) for p in pictures(2, seed=1)], [0, 1])
    return DataConfig(source="parquet", path=str(root), **{"persons": COLUMN, **changes})


def folder(root, records):
    """One training picture for each path below train/."""
    for i, path in enumerate(records):
        place = root / "train" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(pictures(len(records))[i]))
    write_folder(root / "test", pictures(2, seed=1), ["cat", "dog"], ["cat", "dog"])
    return DataConfig(source="folder", path=str(root), persons={"kind": "folder"})


def listed(path, lines, header="row,person", encoding="utf-8"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding=encoding)


class TestColumn:
    def test_integers_and_text_name_the_same_persons(self, tmp_path):
        numbers = [7, 7, 8, 9, 10, 10, 7, 1, 2, 3, 4, 2**62]
        for i, column in enumerate(
            [
                pa.array(numbers, pa.int64()),
                pa.array(map(str, numbers)),
                pa.array(map(str, numbers), pa.large_string()),
                pa.array(map(str, numbers)).dictionary_encode(),
                pa.array([f" {n} " for n in numbers]),
            ]
        ):
            images = load_train(parquet(tmp_path / str(i), column), 1)
            assert images.persons.tolist() == list(map(str, numbers))
            assert images.person_count == 9

    def test_other_spellings_are_other_persons_but_for_unicodes_two_forms(self, tmp_path):
        names = ["7", "07", "p7", "P7", "Müller", unicodedata.normalize("NFD", "Müller")] * 2
        assert load_train(parquet(tmp_path, names), 1).person_count == 5

    def test_persons_run_over_all_pieces_of_the_source(self, tmp_path):
        parquet(tmp_path, list("aabb"), count=4, name="train-00000-of-00002.parquet")
        config = parquet(tmp_path, list("bc"), count=2, name="train-00001-of-00002.parquet")
        assert load_train(config, 1).persons.tolist() == list("aabbbc")

    def test_a_missing_column_names_those_there(self, tmp_path):
        with pytest.raises(
            DataError,
            match=r"data\.persons\.column='patient': no such column in train\.parquet; use one of: image, lab",
        ):
            load_train(parquet(tmp_path), 1)

    @pytest.mark.parametrize("empty", [None, "", "  ", "nan", "None", "NULL", "<NA>"])
    def test_records_without_a_person_are_counted_and_named(self, empty, tmp_path):
        config = parquet(tmp_path, ["a", empty, "b", empty, empty, empty, empty, *"ccccc"])
        with pytest.raises(
            DataError,
            match=r"data\.persons\.column='patient': 5 of 12 records in .*train\.parquet have no person "
            r"\(row 1, row 3, row 4 and 2 more\); fill them in, or drop those records",
        ):
            load_train(config, 1)

    def test_missing_persons_of_a_later_piece_are_named_by_their_row_over_all(self, tmp_path):
        parquet(tmp_path, list("aabb"), count=4, name="train-00000-of-00002.parquet")
        config = parquet(tmp_path, ["b", None], count=2, name="train-00001-of-00002.parquet")
        with pytest.raises(DataError, match=r"1 of 6 records .* \(row 5\)"):
            load_train(config, 1)

    def test_integers_with_gaps_and_a_column_of_nothing(self, tmp_path):
        with pytest.raises(DataError, match=r"1 of 12 records .* \(row 0\)"):
            load_train(parquet(tmp_path, [None, *range(11)]), 1)
        with pytest.raises(DataError, match=r"12 of 12 records"):
            load_train(parquet(tmp_path, [None] * 12), 1)

    @pytest.mark.parametrize("column", [[1.0] * 12, [1.5, None] * 6, [True] * 12, [{"id": 1}] * 12])
    def test_floats_and_other_types_are_refused(self, column, tmp_path):
        with pytest.raises(DataError, match=r"'patient': is .* in .*; store persons as integers or text"):
            load_train(parquet(tmp_path, column), 1)

    def test_an_endless_id_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"1 records .* over 200 characters \(row 0\); use shorter ids"):
            load_train(parquet(tmp_path, ["x" * 201, *"abcdefghijk"]), 1)


class TestFolder:
    def test_a_name_below_two_classes_is_one_person(self, tmp_path):
        config = folder(tmp_path, ["cat/ann/1.png", "cat/bob/1.png", "dog/ann/1.png", "dog/ann/day 2/1.png"])
        images = load_train(config, 1)
        assert images.persons.tolist() == ["ann", "bob", "ann", "ann"]
        assert images.labels.tolist() == [0, 0, 1, 1]
        assert images.person_count == 2

    def test_pictures_outside_persons_folders_are_counted_and_named(self, tmp_path):
        config = folder(tmp_path, ["cat/ann/1.png", "cat/2.png", "dog/bob/1.png", "dog/2.png"])
        with pytest.raises(
            DataError,
            match=r"data\.persons\.kind='folder': 2 of 4 records in .*train have no person \(cat/2\.png, dog/2\.png\); "
            r"put every picture into <class>/<person>/",
        ):
            load_train(config, 1)


class TestFile:
    def test_rows_of_all_pieces_in_any_order_with_a_byte_order_mark(self, tmp_path):
        parquet(tmp_path, count=4, name="train-00000-of-00002.parquet")
        parquet(tmp_path, count=2, name="train-00001-of-00002.parquet")
        config = DataConfig(source="parquet", path=str(tmp_path), persons=FILE)
        lines = ["5, eve", '003,"d, e"', "1,bob", "0,ann", "", "4,eve", "2,bob"]
        listed(tmp_path / "persons.csv", lines, encoding="utf-8-sig")
        assert load_train(config, 1).persons.tolist() == ["ann", "bob", "bob", "d, e", "eve", "eve"]
        listed(tmp_path / "persons.csv", [f"p{5 - i},{i}" for i in range(6)], header="person,row")
        assert load_train(config, 1).persons.tolist() == ["p5", "p4", "p3", "p2", "p1", "p0"]

    def test_pictures_by_their_path_below_the_splits_folder(self, tmp_path):
        config = folder(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.png"]).model_copy(
            update={"persons": DataConfig(source="folder", persons=FILE).persons}
        )
        listed(tmp_path / "persons.csv", ["dog/1.png,ann", "cat/2.png,bob", "cat/1.png,ann"], "picture,person")
        assert load_train(config, 1).persons.tolist() == ["ann", "bob", "ann"]
        listed(tmp_path / "persons.csv", ["cat/1.png,ann", "cat/2.png,bob", "dog/9.png,ann"], "picture,person")
        with pytest.raises(
            DataError, match=r"names 1 picture \(dog/9\.png\) .*; the source's first picture is cat/1\."
        ):
            load_train(config, 1)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["0,a", "1,a", "4,b"], r"has no line for 3 rows \(2, 3, 5\) of the source's 6 records; add them"),
            ([*(f"{i},a" for i in range(6)), "1,b", "02,a"], r"names 2 rows \(1, 2\) more than once; keep one line"),
            ([*(f"{i},a" for i in range(10))], r"names 4 rows \(6, 7, 8 and 1 more\) that the source does not have"),
            ([*(f"{i},a" for i in range(6)), "-1,a"], r"names 1 row \(-1\) that the source does not have"),
            ([*(f"{i},a" for i in range(5)), "5.0,a"], r"names 1 row \(5\.0\) that the source does not have"),
            (
                ["0,a", "1, ", "2,nan", *(f"{i},a" for i in (3, 4, 5))],
                r"2 of 6 records .* \(row 1, row 2\); fill them in",
            ),
            (["0,a", "1", "2,a,b"], r"2 lines have not 2 fields \(line 3, line 4\); write row,person in each"),
            (['0,"a', "1,b"], r"is not CSV in UTF-8 \(unexpected end of data\)"),
            ([], r"has no line for 6 rows \(0, 1, 2 and 3 more\) of the source's 6 records"),
        ],
        ids=["missing", "repeated", "unknown", "negative", "no number", "empty", "fields", "quotes", "none"],
    )
    def test_lines_that_do_not_fit_are_counted_and_named(self, lines, message, tmp_path):
        config = parquet(tmp_path, count=6, persons=None).model_copy(
            update={"persons": DataConfig(source="parquet", persons=FILE).persons}
        )
        listed(tmp_path / "persons.csv", lines)
        with pytest.raises(DataError, match=r"data\.persons\.file='.*persons\.csv': .*" + message):
            load_train(config, 1)

    @pytest.mark.parametrize("header", ["picture,person", "row;person", "row,person,date", "0,a", ""])
    def test_another_header_is_shown_back(self, header, tmp_path):
        config = parquet(tmp_path, persons=None).model_copy(
            update={"persons": DataConfig(source="parquet", persons=FILE).persons}
        )
        listed(tmp_path / "persons.csv", [], header)
        shown = header or "nothing"
        with pytest.raises(DataError, match=f"begins with '{shown}'; its first line must be row,person"):
            load_train(config, 1)

    def test_a_file_that_is_missing_or_not_text(self, tmp_path):
        config = DataConfig(source="parquet", path=str(tmp_path), persons=FILE)
        parquet(tmp_path)
        with pytest.raises(
            DataError, match=r"persons\.csv': cannot be read \(No such file .*; check data\.persons\.file"
        ):
            load_train(config, 1)
        (tmp_path / "persons.csv").write_bytes(b"row,person\n0,M\xfcller\n")
        with pytest.raises(DataError, match=r"is not CSV in UTF-8"):
            load_train(config, 1)
        (tmp_path / "persons.csv").write_text("row,person\n0," + "x" * (csv.field_size_limit() + 1))
        with pytest.raises(DataError, match=r"is not CSV in UTF-8 \(field larger"):
            load_train(config, 1)


class TestHeldOut:
    @given(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 14)), min_size=8, max_size=60),
        st.floats(0.2, 0.8),
        st.integers(0, 99),
    )
    def test_no_person_is_on_both_sides(self, records, share, seed):
        labels, persons = np.array([k for k, _ in records]), np.array([f"p{p}" for _, p in records])
        try:
            train, held = held_out(labels, share, seed, persons)
        except DataError:
            return
        assert sorted([*train, *held]) == list(range(len(labels)))
        assert not set(persons[train]) & set(persons[held])

    def test_each_class_gives_its_share_of_persons(self):
        labels = np.repeat(np.arange(3), 200)
        persons = np.array([f"p{i // 5:03}" for i in range(600)])
        _, held = held_out(labels, 0.25, 1, persons)
        assert np.bincount(labels[held]).tolist() == [50, 50, 50]
        with pytest.raises(DataError, match=r"test_share=0\.25: leaves one part of 1 persons empty; use more persons"):
            held_out(labels[:5], 0.25, 1, persons[:5])

    def test_a_source_without_a_test_split_shares_no_person_with_its_evaluation(self, tmp_path):
        config = parquet(tmp_path, [i // 3 for i in range(60)], count=60, test_share=0.3)
        (tmp_path / "test.parquet").unlink()
        train, held = load_train(config, 1), load_evaluation(config, 1)
        assert len(train) + len(held) == 60
        assert train.person_count + held.person_count == 20

    @pytest.mark.parametrize("with_test", [True, False])
    def test_validation_takes_whole_persons_and_at_least_so_many_images(self, with_test, tmp_path):
        config = parquet(tmp_path, [i % 20 for i in range(60)], count=60, validation=10, test_share=0.3)
        if not with_test:
            (tmp_path / "test.parquet").unlink()
        train, validation = load_train(config, 1), load_evaluation(config, 1)
        assert len(validation) == 12  # four persons of three images
        assert validation.person_count == 4
        assert not set(train.persons) & set(validation.persons)
        other = load_evaluation(config, 2)
        assert set(other.persons) != set(validation.persons)

    def test_validation_that_leaves_no_person_is_refused(self, tmp_path):
        config = parquet(tmp_path, [i % 2 for i in range(12)], validation=7)
        with pytest.raises(
            DataError, match=r"data\.validation=7: must be less than the 12 training images and leave a"
        ):
            load_train(config, 1)

    def test_a_test_split_needs_no_persons(self, tmp_path):
        assert load_evaluation(parquet(tmp_path, list("aabbccddeeff")), 1).persons is None
        assert len(load_evaluation(folder(tmp_path, ["cat/ann/1.png", "dog/bob/1.png"]), 1)) == 2


class TestDealing:
    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(["iid", "dirichlet", "shards", "pathological"]),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=8, max_size=80),
        st.integers(1, 6),
        st.integers(0, 2**40),
    )
    def test_nobody_is_in_two_silos_and_no_record_is_left_over(self, kind, records, silos, seed):
        labels, persons = np.array([k for k, _ in records]), np.array([f"p{p}" for _, p in records])
        try:
            parts = partition(labels, PartitionConfig(kind=kind, min_size=1), silos, seed, persons)
        except (ConfigError, DataError):
            return
        assert len(parts) == silos
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
        assert all(np.array_equal(part, np.sort(part)) for part in parts)
        seen = [set(persons[part]) for part in parts]
        assert sum(map(len, seen)) == len(set(persons))
        assert min(map(len, seen)) >= 1
        if kind == "iid":
            assert max(map(len, seen)) - min(map(len, seen)) <= 1

    @pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "pathological"])
    def test_persons_of_one_image_each_are_dealt_as_images_are(self, kind):
        labels = np.repeat(np.arange(10), 40)
        persons = np.array([f"{i:03}" for i in range(400)])
        alone = partition(labels, PartitionConfig(kind=kind), 5, 1)
        named = partition(labels, PartitionConfig(kind=kind), 5, 1, persons)
        assert all(np.array_equal(a, b) for a, b in zip(alone, named, strict=True))

    def test_a_small_alpha_is_skewed_with_persons_too(self):
        labels = np.repeat(np.arange(10), 200)
        persons = np.array([f"{i // 5:03}" for i in range(2000)])

        def skew(alpha: float) -> float:
            parts = partition(labels, PartitionConfig(alpha=alpha, min_size=1), 5, 1, persons)
            return float(np.mean([np.bincount(labels[p], minlength=10).max() / len(p) for p in parts]))

        assert skew(0.1) > skew(100.0) + 0.1

    def test_too_few_persons_are_counted_as_persons(self):
        labels, persons = np.zeros(40, int), np.array([f"{i // 10}" for i in range(40)])
        with pytest.raises(DataError, match=r"silos\.count=5: there are only 4 training persons"):
            partition(labels, PartitionConfig(kind="iid"), 5, 1, persons)
        with pytest.raises(DataError, match=r"min_size=20: 2 silos of that size need 40 persons, there are 4"):
            partition(labels, PartitionConfig(kind="dirichlet"), 2, 1, persons)

    def test_pathological_refuses_persons_of_several_classes(self):
        labels, persons = np.arange(40) % 4, np.array([f"{i // 8}" for i in range(40)])
        with pytest.raises(
            DataError, match=r"partition\.kind='pathological': 5 of 5 persons have images of several cl"
        ):
            partition(labels, PartitionConfig(kind="pathological"), 2, 1, persons)

    def test_a_dealt_source_gives_each_silo_its_images_persons(self, tmp_path):
        data = parquet(tmp_path, [i // 2 for i in range(12)])
        config = RunConfig(data=data, silos=SilosConfig(count=3, partition=PartitionConfig(kind="iid")))
        person_of = {image.tobytes(): str(i // 2) for i, image in enumerate(pictures(12))}
        silos = list(iterate_silo_images(config))
        assert [silo.person_count for silo in silos] == [2, 2, 2]
        for number, silo in enumerate(silos):
            assert silo.persons.tolist() == [person_of[image[0].tobytes()] for image in silo.images]
            assert np.array_equal(load_silo_train(config, number).persons, silo.persons)

    def test_a_limit_draws_single_images_and_keeps_their_persons(self, tmp_path):
        config = parquet(tmp_path, [i // 2 for i in range(12)], train_limit=5)
        images = load_train(config, 1)
        person_of = {image.tobytes(): str(i // 2) for i, image in enumerate(pictures(12))}
        assert images.persons.tolist() == [person_of[image[0].tobytes()] for image in images.images]
        assert len(images) == 5


class TestOwnFiles:
    def run(self, root, persons, source="parquet", count=2) -> RunConfig:
        return RunConfig(
            data=DataConfig(source=source, path=str(root), persons=persons),
            silos=SilosConfig(count=count, partition=PartitionConfig(kind="own_files")),
        )

    def test_each_silo_has_its_own_persons(self, tmp_path):
        parquet(tmp_path / "0", list("aab"), count=3)
        parquet(tmp_path / "1", list("acc"), count=3)
        silos = list(iterate_silo_images(self.run(tmp_path, COLUMN)))
        assert [silo.persons.tolist() for silo in silos] == [list("aab"), list("acc")]
        assert load_silo_train(self.run(tmp_path, COLUMN), 1).person_count == 2

    def test_the_file_lies_in_each_silos_folder(self, tmp_path):
        for silo in "01":
            folder(tmp_path / silo, ["cat/1.png", "dog/1.png"])
            listed(tmp_path / silo / "persons.csv", ["cat/1.png,x", f"dog/1.png,{silo}"], "picture,person")
        silos = list(iterate_silo_images(self.run(tmp_path, FILE, "folder")))
        assert [silo.persons.tolist() for silo in silos] == [["x", "0"], ["x", "1"]]

    def test_real_owners_files_take_no_invented_persons(self, tmp_path):
        parquet(tmp_path / "0", list("aab"), count=3)
        with pytest.raises(ConfigError, match=r"data\.persons\.kind='blocks': invents persons .*; name the persons by"):
            load_silo_train(self.run(tmp_path, {"kind": "blocks", "size": 2}), 0)


class TestBlocks:
    def test_consecutive_records_of_a_dealt_silo_are_one_person_and_nothing_else_changes(self):
        silos = SilosConfig(count=3)
        plain = RunConfig(data=DataConfig(train_limit=100), silos=silos)
        blocks = RunConfig(data=DataConfig(train_limit=100, persons={"kind": "blocks", "size": 5}), silos=silos)
        everybody = []
        for one, other in zip(iterate_silo_images(plain), iterate_silo_images(blocks), strict=True):
            assert one.persons is None
            assert np.array_equal(one.images, other.images)
            names, number = np.unique(other.persons, return_inverse=True)
            assert sorted(np.bincount(number))[1:] == [5] * (len(names) - 1)
            assert (np.diff(np.flatnonzero(np.diff(number))) == 5).all()
            assert other.person_count == -(-len(one) // 5)
            everybody += names.tolist()
        assert len(everybody) == len(set(everybody))
        assert np.array_equal(load_silo_train(blocks, 2).persons, other.persons)
        assert np.array_equal(load_evaluation(plain.data, 1).images, load_evaluation(blocks.data, 1).images)


class TestImageSet:
    def images(self, persons):
        return ImageSet(np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4, np.int64), 2, persons)

    def test_a_subset_keeps_persons(self):
        images = self.images(np.array(list("abca")))
        assert images.subset(np.array([3, 2])).persons.tolist() == ["a", "c"]
        assert images.subset(np.array([True, False, False, True])).person_count == 1
        assert self.images(None).subset(np.array([1])).persons is None
        assert self.images(None).person_count is None

    @pytest.mark.parametrize("persons", [np.arange(4), np.array(["a"]), np.array([["a"]] * 4), np.array([b"a"] * 4)])
    def test_persons_are_text_one_for_each_image(self, persons):
        with pytest.raises(DataError, match=r"persons='.*': must be text, one per image \(4\)"):
            self.images(persons)


class TestConfiguration:
    @pytest.mark.parametrize("persons", [COLUMN, {"kind": "folder"}, FILE, {"kind": "blocks", "size": 5}, None])
    def test_every_kind_survives_being_saved(self, persons, tmp_path):
        source = "folder" if persons == {"kind": "folder"} else "parquet"
        config = validate(RunConfig, {"data": {"source": source, "persons": persons}}, "test")
        save_config(config, tmp_path / "config.yaml")
        assert load_as(RunConfig, tmp_path / "config.yaml") == config

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (
                {"source": "folder", "persons": COLUMN},
                r"data\.persons\.kind='column': names persons of parquet sources",
            ),
            ({"source": "parquet", "persons": {"kind": "folder"}}, r"kind='folder': names persons of folder sources"),
            ({"source": "mnist", "persons": FILE}, r"kind='file': names persons of parquet and folder sources alone"),
            (
                {"source": "parquet", "persons": {"kind": "column", "column": "label"}},
                r"column='label': is already the",
            ),
            (
                {"persons": {"kind": "blocks", "size": 0}},
                r"data\.persons\.blocks\.size=0: .*greater than or equal to 1",
            ),
            ({"persons": {"kind": "blocks"}}, r"data\.persons\.blocks\.size=.*: field required"),
            ({"persons": {"kind": "column", "colum": "x"}}, r"colum: unknown key; the nearest valid one is 'column'"),
            ({"persons": {"kind": "patients"}}, r"data\.persons=.*'column', 'folder', 'file', 'blocks'"),
            ({"persons": "patient_id"}, r"data\.persons='patient_id'"),
        ],
        ids=["column", "folder", "file", "label", "size", "no size", "key", "kind", "text"],
    )
    def test_faults_are_told(self, data, message):
        with pytest.raises(ConfigError, match=message):
            validate(RunConfig, {"data": data}, "test")
