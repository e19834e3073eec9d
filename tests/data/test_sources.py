# SPDX-License-Identifier: Apache-2.0
"""Every form of source gives the pixels and labels that lie there, and bad files are told apart."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.data.sources import held_out, load_evaluation, load_train
from fedcpsc.errors import DataError
from fedcpsc.silo_config import DataConfig


def records(images) -> set[bytes]:
    return {image.tobytes() for image in images.images}


def test_digits_are_scaled_exactly_and_held_out_images_are_never_trained_on():
    from sklearn.datasets import load_digits

    original = load_digits()
    train, held = load_train(DataConfig(), 3), load_evaluation(DataConfig(), 3)
    assert len(train) + len(held) == len(original.target)
    assert train.image_shape == (1, 8, 8)
    assert train.classes == 10
    expected = {
        (int(label), np.round(v * 255 / 16).astype(np.uint8).tobytes())
        for v, label in zip(original.images, original.target, strict=True)
    }
    assert {
        (int(label), image.tobytes()) for s in (train, held) for image, label in zip(s.images, s.labels, strict=True)
    } == expected
    assert not records(train) & records(held)
    shares = np.bincount(held.labels) / np.bincount(original.target)
    assert np.abs(shares - 0.28).max() < 0.01  # stratified


def test_the_seed_alone_decides_the_held_out_split():
    a, b, c = (load_evaluation(DataConfig(), seed) for seed in (1, 1, 2))
    assert np.array_equal(a.images, b.images)
    assert not np.array_equal(a.images, c.images)


@given(st.lists(st.integers(0, 4), min_size=8, max_size=60), st.floats(0.2, 0.8), st.integers(0, 99))
def test_held_out_and_training_records_partition_the_data(labels, share, seed):
    labels = np.array(labels)
    try:
        train, held = held_out(labels, share, seed)
    except DataError:
        counts = np.bincount(labels)
        kept = sum(round(share * int(n)) for n in counts)
        assert kept in (0, len(labels))
        return
    assert sorted([*train, *held]) == list(range(len(labels)))
    for k in np.unique(labels):
        assert (labels[held] == k).sum() == round(share * (labels == k).sum())


def test_parquet_gives_the_pixels_and_labels_of_each_split(parquet_root):
    config = DataConfig(source="parquet", path=str(parquet_root))
    train, test = load_train(config, 1), load_evaluation(config, 1)
    assert np.array_equal(train.images[:, 0], pictures(12))
    assert np.array_equal(test.images[:, 0], pictures(4, seed=1))
    assert train.labels.tolist() == [0, 1, 2] * 4
    assert (train.classes, test.classes) == (3, 3)


def test_parquet_in_the_hubs_pieces_with_named_classes(tmp_path):
    images = pictures(4)
    for i in range(2):
        write_parquet(
            tmp_path / f"train-0000{i}-of-00002.parquet",
            [png(p) for p in images[2 * i : 2 * i + 2]],
            [0, i],
            list("abcd"),
        )
    config = DataConfig(source="parquet", path=str(tmp_path), test_share=0.5)
    train, held = load_train(config, 1), load_evaluation(config, 1)
    assert train.classes == 4
    assert len(train) + len(held) == 4


def test_the_environment_names_the_folder_where_the_config_does_not(parquet_root, monkeypatch):
    monkeypatch.setenv("FEDCPSC_DATA", str(parquet_root))
    assert len(load_train(DataConfig(source="parquet"), 1)) == 12
    monkeypatch.delenv("FEDCPSC_DATA")
    with pytest.raises(DataError, match=r"FEDCPSC_DATA"):
        load_train(DataConfig(source="parquet"), 1)


def test_limits_draw_by_the_seed(parquet_root):
    config = DataConfig(source="parquet", path=str(parquet_root), train_limit=5, test_limit=2)
    a, b, c = (load_train(config, seed) for seed in (1, 1, 2))
    assert len(a) == 5
    assert np.array_equal(a.images, b.images)
    assert not np.array_equal(a.images, c.images)
    assert len(load_evaluation(config, 1)) == 2
    assert len(load_train(config.model_copy(update={"train_limit": 99}), 1)) == 12


def test_resizing_and_conversion_are_pillows(parquet_root):
    config = DataConfig(source="parquet", path=str(parquet_root), image_size=4, channels=3)
    train = load_train(config, 1)
    assert train.image_shape == (3, 4, 4)
    expected = Image.fromarray(pictures(12)[7]).convert("RGB").resize((4, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(train.images[7].transpose(1, 2, 0), np.asarray(expected))


def test_colour_becomes_grey_where_asked(tmp_path):
    images = pictures(3, channels=3)
    write_parquet(tmp_path / "train.parquet", [png(p) for p in images], [0, 1, 1])
    write_parquet(tmp_path / "test.parquet", [png(images[0])], [1])
    kept = load_train(DataConfig(source="parquet", path=str(tmp_path)), 1)
    assert np.array_equal(kept.images.transpose(0, 2, 3, 1), images)
    grey = load_train(DataConfig(source="parquet", path=str(tmp_path), channels=1), 1)
    assert np.array_equal(grey.images[2, 0], np.asarray(Image.fromarray(images[2]).convert("L")))


def test_folders_map_names_to_the_same_labels_in_both_splits(tmp_path):
    write_folder(tmp_path / "train", pictures(6), ["ant", "bee", "cat"] * 2, ["ant", "bee", "cat"])
    write_folder(tmp_path / "test", pictures(2, seed=1), ["cat", "bee"], ["bee", "cat"])
    config = DataConfig(source="folder", path=str(tmp_path))
    train, test = load_train(config, 1), load_evaluation(config, 1)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels.tolist() == [1, 2]
    assert test.classes == 3
    assert np.array_equal(test.images[0, 0], pictures(2, seed=1)[1])


def test_folder_without_a_test_split_holds_a_share_out(tmp_path):
    write_folder(tmp_path / "train", pictures(10), ["a", "b"] * 5, ["a", "b"])
    config = DataConfig(source="folder", path=str(tmp_path), test_share=0.4)
    train, held = load_train(config, 1), load_evaluation(config, 1)
    assert (len(train), len(held)) == (6, 4)
    assert not records(train) & records(held)


def test_torchvision_sources_are_read_and_never_downloaded(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 5), ("t10k", 3)):
        images = pictures(count, 28)
        header = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(count, dtype=np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            b"\x00\x00\x08\x01" + count.to_bytes(4, "big") + labels.tobytes()
        )
    config = DataConfig(source="mnist", path=str(tmp_path))
    train = load_train(config, 1)
    assert np.array_equal(train.images[:, 0], pictures(5, 28))
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    assert train.classes == 10
    assert len(load_evaluation(config, 1)) == 3
    with pytest.raises(DataError, match=r"data\.path=.*FashionMNIST.*download it there"):
        load_train(DataConfig(source="fashion_mnist", path=str(tmp_path)), 1)


def test_colour_arrays_of_torchvision_keep_their_channels(tmp_path, monkeypatch):
    class Stored:
        """What torchvision's CIFAR-10 and CIFAR-100 offer, without their pickled files."""

        def __init__(self, root, train, download):
            assert not download
            self.data = pictures(4 if train else 2, 5, channels=3)
            self.targets = [0, 1, 9, 0][: len(self.data)]
            self.classes = list("abcdefghij")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Stored)
    train = load_train(DataConfig(source="cifar10", path=str(tmp_path)), 1)
    assert np.array_equal(train.images.transpose(0, 2, 3, 1), pictures(4, 5, channels=3))
    assert (train.labels.tolist(), train.classes) == ([0, 1, 9, 0], 10)


def test_no_common_images_means_no_evaluation(tmp_path):
    write_parquet(tmp_path / "0" / "train.parquet", [png(p) for p in pictures(2)], [0, 1])
    assert load_evaluation(DataConfig(source="parquet", path=str(tmp_path)), 1) is None


class TestBadInput:
    """name=value, constraint, remedy."""

    def load(self, root, **changes):
        return load_train(DataConfig(source="parquet", path=str(root), **changes), 1)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"data\.path='.*nowhere': is no folder; check"):
            self.load(tmp_path / "nowhere")

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match=r"has no train\.parquet; check"):
            self.load(tmp_path)

    def test_missing_image_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"has no folder train/"):
            load_train(DataConfig(source="folder", path=str(tmp_path)), 1)

    def test_folder_without_classes(self, tmp_path):
        (tmp_path / "train").mkdir()
        with pytest.raises(DataError, match=r"has no class folders; make one folder for each class"):
            load_train(DataConfig(source="folder", path=str(tmp_path)), 1)

    @pytest.mark.parametrize(("field", "name"), [("image_column", "img"), ("label_column", "fine_label")])
    def test_missing_column_names_those_there(self, field, name, parquet_root):
        with pytest.raises(
            DataError, match=f"data.{field}='{name}': no such column in train.parquet; use one of: image, label"
        ):
            self.load(parquet_root, **{field: name})

    def test_corrupt_file(self, tmp_path):
        (tmp_path / "train.parquet").write_bytes(b"not parquet at all")
        with pytest.raises(DataError, match=r"cannot be read .*; restore the parquet file"):
            self.load(tmp_path)

    def test_corrupt_image_names_its_row(self, tmp_path):
        good = png(pictures(1)[0])
        for bad in (b"no image", good[: len(good) // 2]):
            write_parquet(tmp_path / "train.parquet", [good, bad, good, good], [0, 1, 0, 1])
            write_parquet(tmp_path / "test.parquet", [good], [0])
            with pytest.raises(DataError, match=r"row 1': cannot be decoded .*; replace the image"):
                self.load(tmp_path)

    def test_images_outside_the_file(self, tmp_path):
        write_parquet(tmp_path / "train.parquet", [None, png(pictures(1)[0])], [0, 1])
        with pytest.raises(DataError, match=r"1 of 2 rows without the bytes of an image: .*row 0; embed"):
            self.load(tmp_path)

    def test_image_column_of_another_type(self, parquet_root):
        pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), parquet_root / "train.parquet")
        with pytest.raises(DataError, match=r"data.image_column='image': image is int64 in .*; must hold images as"):
            self.load(parquet_root)

    def test_unknown_label(self, parquet_root):
        write_parquet(parquet_root / "test.parquet", [png(p) for p in pictures(2)], [0, 3])
        with pytest.raises(DataError, match=r"label=3: .*test.parquet, row 1: must be in \[0, 3\)"):
            load_evaluation(DataConfig(source="parquet", path=str(parquet_root)), 1)

    def test_unknown_class_folder(self, tmp_path):
        write_folder(tmp_path / "train", pictures(2), ["a", "b"], ["a", "b"])
        write_folder(tmp_path / "test", pictures(1), ["c"], ["c"])
        with pytest.raises(DataError, match=r"label='c': .*not in train/; classes are a, b"):
            load_evaluation(DataConfig(source="folder", path=str(tmp_path)), 1)

    def test_negative_label_and_one_class(self, tmp_path):
        images = [png(p) for p in pictures(2)]
        write_parquet(tmp_path / "train.parquet", images, [-2, 1])
        with pytest.raises(DataError, match=r"label=-2: .*train.parquet, row 0: must be in \[0, 2\)"):
            self.load(tmp_path)
        write_parquet(tmp_path / "train.parquet", images, [0, 0])
        with pytest.raises(DataError, match=r"classes=1: .*at least 2"):
            self.load(tmp_path)

    def test_sizes_that_differ_ask_for_image_size(self, tmp_path):
        images = [png(pictures(1)[0]), png(pictures(1, size=9)[0])]
        write_parquet(tmp_path / "train.parquet", images, [0, 1])
        write_parquet(tmp_path / "test.parquet", images[:1], [0])
        with pytest.raises(
            DataError, match=r"data\.image_size=None: images differ in size \(.*row 1 is 9x9, the first is 6x6\); set"
        ):
            self.load(tmp_path)
        assert self.load(tmp_path, image_size=6).image_shape == (1, 6, 6)

    def test_channels_that_differ_ask_for_channels(self, tmp_path):
        images = [png(pictures(1)[0]), png(pictures(1, channels=3)[0])]
        write_parquet(tmp_path / "train.parquet", images, [0, 1])
        write_parquet(tmp_path / "test.parquet", images[:1], [0])
        with pytest.raises(
            DataError, match=r"data\.channels=None: images differ in channels .*; set data.channels to 1 or 3"
        ):
            self.load(tmp_path)
        assert self.load(tmp_path, channels=1).image_shape == (1, 6, 6)


def test_validation_images_belong_to_no_silo_and_leave_the_test_split_unread():
    plain, choosing = DataConfig(source="digits"), DataConfig(source="digits", validation=200)
    train, validation = load_train(choosing, 1), load_evaluation(choosing, 1)
    test = load_evaluation(plain, 1)
    assert validation is not None
    assert test is not None
    assert len(validation) == 200
    assert len(train) + 200 == len(load_train(plain, 1))
    kept = {image.tobytes() for image in validation.images}
    assert not kept & {image.tobytes() for image in train.images}
    assert not kept & {image.tobytes() for image in test.images}
    with pytest.raises(DataError, match=r"data\.validation=99999"):
        load_train(DataConfig(source="digits", validation=99_999), 1)
