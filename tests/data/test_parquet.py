# SPDX-License-Identifier: Apache-2.0
"""Parquet files as people have them: shards, names of classes in several orders, labels and images of other types."""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.picture_sources import pictures, png, write_parquet

from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import DataError
from fedcpsc.silo_config import DataConfig

PICTURES = pictures(40)
ENCODED = [png(p) for p in PICTURES]


def load(root, **changes):
    return load_train(DataConfig(source="parquet", path=str(root), **changes), 1)


def write(root, name: str, labels: list, names=None, images=ENCODED, **columns) -> None:
    write_parquet(root / name, images[: len(labels)], labels, names, **columns)


def with_metadata(path, feature: object) -> None:
    text = json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": text}), path)


@pytest.fixture
def tested(tmp_path):
    """A folder with a test split, so that all training rows are trained on."""
    write(tmp_path, "test.parquet", [0, 1])
    return tmp_path


class TestShards:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["train-00000-of-00003", "train-00002-of-00003"], r"2 of 3 shards of train found; missing: 00001; copy"),
            (["train-00001-of-00009"], r"1 of 9 .*missing: 00000, 00002, 00003, 00004, 00005 and 3 more"),
            (
                ["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"],
                r"of more than one count \(-of-00001, -of-00002\) lie there: the same records may be there twice; keep",
            ),
            (["train", "train-00000-of-00001"], r"train.parquet and train-00000-of-00001.parquet lie there: the same"),
            (["train-00000-of-00001", "train-00000-of-00001 (1)"], r"lie there: the same records may be there twice"),
            (
                ["train-00000-of-00001-0a1b", "train-00000-of-00001-2c3d"],
                r"shard 00000 of 1 of train is there more than",
            ),
            (
                ["train-00000-of-00002", "train-00001-of-00002", "train-00002-of-00002"],
                r"shard 00002 of 2 .* cannot be",
            ),
            (["train-00000-of-00000"], r"shard 00000 of 0 of train cannot be"),
        ],
    )
    def test_missing_and_doubled_shards_are_refused(self, tested, names, message):
        for name in names:
            write(tested, f"{name}.parquet", [0, 1] * 5)
        with pytest.raises(DataError, match=message):
            load(tested)

    def test_a_test_split_has_all_its_shards_too(self, tmp_path):
        write(tmp_path, "train.parquet", [0, 1] * 5)
        write(tmp_path, "test-00001-of-00002.parquet", [0, 1])
        with pytest.raises(DataError, match=r"1 of 2 shards of test found; missing: 00000"):
            load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1)

    def test_shards_with_the_hubs_hash_and_files_without_a_count_are_read(self, tested):
        for i in range(2):
            write(tested, f"train-0000{i}-of-00002-0a1b2c3d.parquet", [0, 1] * 3)
        assert len(load(tested)) == 12
        for path in tested.glob("train-*"):
            path.rename(tested / f"train-part{path.name[10]}.parquet")
        assert len(load(tested)) == 12

    def test_what_lies_beside_the_splits_is_named_once(self, tested):
        write(tested, "train.parquet", [0, 1], ["a", "b"])
        write(tested, "validation-00000-of-00001.parquet", [0, 1], ["a", "b"])
        (tested / "train").mkdir()
        note = "parquet files beside those of train and test are not read: validation-00000-of-00001.parquet"
        assert load(tested).reading.notes == ("folders beside those of train and test are not read: train", note)
        assert "beside" not in str(load_evaluation(DataConfig(source="parquet", path=str(tested)), 1).reading.notes)

    def test_silos_folders_beside_a_common_test_split_are_read_by_others(self, tmp_path):
        write(tmp_path, "test.parquet", [0, 1], ["a", "b"])
        write(tmp_path, "0/train.parquet", [0, 1], ["a", "b"])
        (tmp_path / "notes").mkdir()
        notes = load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1).reading.notes
        assert notes == ("folders beside those of train and test are not read: notes",)

    def test_a_folder_is_no_file(self, tested):
        (tested / "train.parquet").mkdir()
        with pytest.raises(DataError, match=r"train.parquet: is no file; put the parquet files there"):
            load(tested)

    def test_folders_named_like_columns_add_none(self, tmp_path):
        root = tmp_path / "label=7"
        root.mkdir()
        write(root, "train.parquet", [0, 1] * 5)
        write(root, "test.parquet", [0, 1])
        assert load(root).labels.tolist() == [0, 1] * 5


class TestNames:
    def test_shards_that_list_names_in_another_order_are_mapped_by_name(self, tested):
        write(tested, "train-00000-of-00002.parquet", [0, 1, 0], ["healthy", "ill"])
        write(tested, "train-00001-of-00002.parquet", [0, 1, 0], ["ill", "healthy"])
        train = load(tested)
        assert train.class_names == ("healthy", "ill")
        assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert train.reading.notes == (
            "train-00001-of-00002.parquet lists the classes otherwise, and was mapped by name",
        )

    def test_a_test_split_is_mapped_to_the_training_names(self, tmp_path):
        write(tmp_path, "train.parquet", [0, 1, 2], ["a", "b", "c"])
        write(tmp_path, "test.parquet", [0, 1, 1], ["c", "a"])
        test = load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1)
        assert test.class_names == ("a", "b", "c")
        assert test.labels.tolist() == [2, 0, 0]

    def test_shards_of_unlike_classes_and_unknown_classes_of_a_test_split_are_refused(self, tmp_path):
        write(tmp_path, "train-00000-of-00002.parquet", [0, 1], ["ant", "bee"])
        write(tmp_path, "train-00001-of-00002.parquet", [0, 1], ["ant", "cat"])
        write(tmp_path, "test.parquet", [0, 1], ["ant", "dog"])
        with pytest.raises(DataError, match=r"in train-00001.* the classes are 'ant', 'cat', and train-00000.*'bee'"):
            load(tmp_path)
        write(tmp_path, "train-00001-of-00002.parquet", [0, 1], ["ant", "bee"])
        with pytest.raises(DataError, match=r"test.parquet has the classes 'dog', which are not among 'ant', 'bee'"):
            load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1)

    def test_a_number_beyond_its_own_files_names_is_refused(self, tested):
        write(tested, "train.parquet", [0, 1, 2], ["a", "b"])
        with pytest.raises(DataError, match=r"label=2: .*train.parquet, row 2: must be in \[0, 2\)"):
            load(tested)

    def test_a_file_without_names_means_the_others_numbers_and_that_is_said(self, tmp_path):
        write(tmp_path, "train.parquet", [0, 1], ["a", "b"])
        write(tmp_path, "test.parquet", [1, 0])
        test = load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1)
        assert test.labels.tolist() == [1, 0]
        assert test.reading.notes == ("test.parquet lists no names: its numbers are taken as the others' names",)

    @pytest.mark.parametrize("names", ["ab", {"0": "a"}, [1, 2], [None, "a"]])
    def test_a_damaged_list_of_names_is_refused(self, tested, names):
        write(tested, "train.parquet", [0, 1])
        with_metadata(tested / "train.parquet", {"names": names})
        with pytest.raises(DataError, match=r"list of class names in the metadata of train.parquet is damaged"):
            load(tested)

    @pytest.mark.parametrize(("names", "message"), [(["a", "a"], "is there twice"), (["a", "A "], "by case or space")])
    def test_names_that_are_too_alike_are_refused(self, tested, names, message):
        write(tested, "train.parquet", [0, 1], names)
        with pytest.raises(DataError, match=message):
            load(tested)

    def test_a_stated_number_of_classes_counts_where_it_can_be(self, tested):
        for stated, classes in ((5, 5), (10**18, 2), ("3", 2), (-1, 2)):
            write(tested, "train.parquet", [0, 1] * 10)
            with_metadata(tested / "train.parquet", {"num_classes": stated})
            assert load(tested).classes == classes


class TestLabels:
    def test_names_as_labels_are_classes_in_the_order_of_their_names(self, tmp_path):
        write(tmp_path, "train.parquet", ["bee", " ant", "cat", "bee"])
        write(tmp_path, "test.parquet", ["cat", "ant"])
        config = DataConfig(source="parquet", path=str(tmp_path))
        train, test = load_train(config, 1), load_evaluation(config, 1)
        assert train.class_names == test.class_names == ("ant", "bee", "cat")
        assert train.labels.tolist() == [1, 0, 2, 1]
        assert test.labels.tolist() == [2, 0]

    def test_categories_and_truth_values_are_read(self, tested):
        write(tested, "train.parquet", [True, False])
        assert load(tested).class_names == ("false", "true")
        table = pq.read_table(tested / "train.parquet")
        categories = pa.array(["b", "a"]).dictionary_encode()
        pq.write_table(table.set_column(1, "label", categories), tested / "train.parquet")
        (tested / "test.parquet").unlink()
        write(tested, "test.parquet", ["a", "b"])
        assert load(tested).labels.tolist() == [1, 0]

    def test_whole_floats_are_numbers_and_others_are_no_labels(self, tested):
        write(tested, "train.parquet", [0.0, 1.0, 2.0])
        assert load(tested).labels.tolist() == [0, 1, 2]
        for bad in (0.37, float("inf"), 1e300):
            write(tested, "train.parquet", [0.0, 1.0, bad])
            with pytest.raises(DataError, match=r"label_column='label': is double in train.parquet, with values such"):
                load(tested)

    @pytest.mark.parametrize("labels", [[[0], [1]], [b"a", b"b"], [{"a": 1}, {"a": 2}]])
    def test_other_types_are_refused_by_name(self, tested, labels):
        write(tested, "train.parquet", labels)
        with pytest.raises(DataError, match=r"label_column='label': is (list|binary|struct).* in train.parquet; an"):
            load(tested)

    @pytest.mark.parametrize(
        "labels", [[0, None, 1, -1], [0.0, float("nan"), 1.0, None], ["a", None, "b", " "], ["a", "nan", "b", "<NA>"]]
    )
    def test_rows_without_a_label_are_refused_or_left_out_by_choice(self, tested, labels):
        write(tested, "train.parquet", labels)
        with pytest.raises(
            DataError, match=r"2 of 4 rows without a label \(null, NaN or -1\): .*row 1, .*row 3; label or"
        ):
            load(tested)
        (tested / "test.parquet").unlink()
        write(tested, "test.parquet", [labels[0], labels[2]])
        train = load(tested, skip_damaged=True)
        assert train.labels.tolist() == [0, 1]
        assert np.array_equal(train.images[:, 0], PICTURES[[0, 2]])
        assert train.reading.left_out[0].count == 2

    def test_words_that_may_stand_for_a_missing_label_are_classes_and_that_is_said(self, tested):
        write(tested, "test.parquet", ["a", "None"])
        write(tested, "train.parquet", ["a", "None", "N/A", "a"])
        train = load(tested)
        assert train.class_names == ("N/A", "None", "a")
        assert "taken for classes: 'N/A', 'None'; store null in rows without a label" in train.reading.notes

    def test_a_class_that_the_file_lists_may_have_any_name(self, tested):
        write(tested, "train.parquet", ["a", "nan", "none"], ["a", "nan", "none"])
        train = load(tested)
        assert train.labels.tolist() == [0, 1, 2]
        assert "taken for classes" not in str(train.reading.notes)

    @pytest.mark.parametrize(
        ("labels", "told"),
        [([1, 2, 3], "1 of the numbers 0 to 3 have no picture: 0. Each"), ([0, 1, 9], "7 of the numbers 0 to 9 have")],
    )
    def test_numbers_that_no_picture_has_are_told(self, tested, labels, told):
        write(tested, "train.parquet", labels)
        assert told in str(load(tested).reading.notes)
        with_metadata(tested / "train.parquet", {"num_classes": max(labels) + 1, "_type": "ClassLabel"})
        assert "have no picture" not in str(load(tested).reading.notes)

    @pytest.mark.parametrize("labels", [[-1] * 4, [None] * 4])
    def test_a_split_without_any_label_is_refused_always(self, tested, labels):
        write(tested, "train.parquet", labels)
        for skip in (False, True):
            with pytest.raises(DataError, match=r"4 of 4 rows without a label|label_column='label': labels up to"):
                load(tested, skip_damaged=skip)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                list(range(1_000_000_000, 1_000_000_030)),
                r"labels up to 1000000029 in 30 rows, as many classes as rows; i",
            ),
            (list(range(30)), r"labels up to 29 in 30 rows, as many classes as rows; is data.label_column right\?"),
            ([i // 2 for i in range(30)], None),
            ([0, 1, 2] * 9 + [5, 5, 10**9], r"labels up to 1000000000 in 30 rows; is data.label_column right\?"),
            ([i % 20 for i in range(30)], r"labels up to 19 in 30 rows, 20 classes, so fewer than two rows a class"),
            ([f"P{i}" for i in range(30)], r"labels such as 'P0', 'P1' in 30 rows, as many classes as rows; is"),
            ([0, 1, 2] * 9 + [0, 1, 31], r"labels up to 31 in 30 rows; is data.label_column right\?"),
        ],
    )
    def test_a_column_of_other_numbers_is_seen_by_its_rows(self, tested, labels, message):
        write(tested, "train.parquet", labels)
        if message is None:
            assert load(tested).classes == 15
            return
        with pytest.raises(DataError, match=message):
            load(tested)

    def test_the_largest_number_there_is_takes_no_memory(self, tested):
        for largest in (2**63 - 1, 2**64 - 1):
            write(tested, "train.parquet", pa.array([0, 1] * 9 + [largest], pa.uint64()))
            with pytest.raises(DataError, match=rf"labels up to {largest} in 19 rows"):
                load(tested)

    def test_a_named_column_may_have_more_classes_than_rows(self, tested):
        write(tested, "train.parquet", [0, 999], [f"class {k}" for k in range(1000)])
        assert load(tested).classes == 1000


class TestImages:
    def test_a_column_of_encoded_bytes_is_read(self, tested):
        table = pa.table({"image": pa.array(ENCODED[:2]), "label": [0, 1]})
        pq.write_table(table, tested / "train.parquet")
        assert np.array_equal(load(tested).images[:, 0], PICTURES[:2])

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([list(data) for data in ENCODED[:2]], "list<.*int64>"),
            ([base64.b64encode(data).decode() for data in ENCODED[:2]], "string"),
        ],
    )
    def test_bytes_of_another_type_are_refused_by_name(self, tested, values, kind):
        image = pa.array([{"bytes": value, "path": None} for value in values])
        pq.write_table(pa.table({"image": image, "label": [0, 1]}), tested / "train.parquet")
        with pytest.raises(DataError, match=rf"image_column='image': image.bytes is {kind} in train.parquet; must"):
            load(tested)

    def test_rows_without_an_image_are_left_out_by_choice(self, tested):
        images = [ENCODED[0], None, ENCODED[2], ENCODED[3]]
        write_parquet(tested / "train.parquet", images, [0, 1, 1, -1])
        train = load(tested, skip_damaged=True)
        assert train.labels.tolist() == [0, 1]
        assert [item.count for item in train.reading.left_out] == [1, 1]

    def test_an_error_names_the_shard_and_its_row(self, tested):
        write(tested, "train-00000-of-00002.parquet", [0, 1, 0])
        write_parquet(tested / "train-00001-of-00002.parquet", [ENCODED[0], b"no image"], [0, 1])
        with pytest.raises(DataError, match=r"train-00001-of-00002.parquet, row 1': cannot be decoded"):
            load(tested)

    def test_persons_stay_with_their_rows_where_rows_are_left_out(self, tested):
        write(tested, "train.parquet", [0, -1, 1, 0])
        table = pq.read_table(tested / "train.parquet").append_column("who", pa.array(["p", None, "q", "r"]))
        pq.write_table(table, tested / "train.parquet")
        train = load(tested, skip_damaged=True, persons={"kind": "column", "column": "who"})
        assert train.persons.tolist() == ["p", "q", "r"]
