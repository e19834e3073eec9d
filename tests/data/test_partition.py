# SPDX-License-Identifier: Apache-2.0
"""Dealing: disjoint, complete, by the seed, and without an endless loop where it cannot be done."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.config import RunConfig
from fedcpsc.data.partition import partition
from fedcpsc.data.silo_images import iterate_silo_images, load_silo_train
from fedcpsc.data.sources import load_train
from fedcpsc.errors import ConfigError, DataError
from fedcpsc.silo_config import DataConfig, PartitionConfig, SilosConfig

KINDS = ["iid", "dirichlet", "shards", "pathological"]


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        PartitionConfig,
        kind=st.sampled_from(KINDS),
        alpha=st.floats(0.05, 100),
        min_size=st.just(1),
        shards_per_silo=st.integers(1, 4),
        classes_per_silo=st.integers(1, 4),
    ),
    st.lists(st.integers(0, 5), min_size=6, max_size=120),
    st.integers(1, 8),
    st.integers(0, 2**40),
)
def test_parts_are_disjoint_complete_and_decided_by_the_seed(config, labels, silos, seed):
    labels = np.array(labels)
    try:
        parts = partition(labels, config, silos, seed)
    except (ConfigError, DataError):
        return
    assert len(parts) == silos
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(len(part) for part in parts) >= 1
    if config.kind == "pathological":
        assert max(len(np.unique(labels[part])) for part in parts) <= config.classes_per_silo
    if config.kind == "iid":
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    again = partition(labels, config, silos, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_data_can_be_dealt_in_every_way(kind):
    labels = np.repeat(np.arange(10), 40)  # sorted by class, as many files are
    config = PartitionConfig(kind=kind, classes_per_silo=2, shards_per_silo=2)
    parts = partition(labels, config, 5, 1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert any(not np.array_equal(a, b) for a, b in zip(parts, partition(labels, config, 5, 2), strict=True))
    classes = [len(np.unique(labels[part])) for part in parts]
    if kind == "iid":
        assert min(classes) >= 9  # the deck was shuffled first
    if kind == "pathological":
        assert classes == [2] * 5


def test_pathological_silos_that_share_classes_have_all_of_them():
    labels = np.repeat(np.arange(4), 50)
    parts = partition(labels, PartitionConfig(kind="pathological", classes_per_silo=2), 4, 1)
    assert [len(np.unique(labels[part])) for part in parts] == [2] * 4


def test_smaller_alpha_is_more_skewed():
    labels = np.repeat(np.arange(10), 200)

    def skew(alpha: float) -> float:
        parts = partition(labels, PartitionConfig(alpha=alpha, min_size=1), 5, 1)
        return float(np.mean([np.bincount(labels[p], minlength=10).max() / len(p) for p in parts]))

    assert skew(0.1) > skew(1.0) > skew(100.0)
    assert skew(100.0) < 0.15


class TestWhatCannotBeDealt:
    labels = np.repeat(np.arange(10), 10)

    def test_more_silos_than_images(self):
        with pytest.raises(DataError, match=r"silos.count=101: there are only 100 training images"):
            partition(self.labels, PartitionConfig(kind="iid"), 101, 1)

    def test_min_size_that_cannot_be_met(self):
        with pytest.raises(
            DataError,
            match=r"partition.min_size=51: 2 silos of that size need 102 images, there are 100; use at most 50",
        ):
            partition(self.labels, PartitionConfig(min_size=51), 2, 1)

    def test_min_size_that_is_never_drawn_ends(self):
        with pytest.raises(DataError, match=r"partition\.min_size=9: no draw of Dirichlet\(0\.01\)"):
            partition(self.labels, PartitionConfig(alpha=0.01, min_size=9), 11, 1)

    def test_fewer_images_of_a_class_than_silos_that_need_one(self):
        with pytest.raises(DataError, match=r"silos.count=3: too many for pathological over 6 images"):
            partition(np.array([0, 0, 0, 0, 0, 1]), PartitionConfig(kind="pathological", classes_per_silo=1), 3, 0)

    def test_fewer_shards_than_silos(self):
        with pytest.raises(DataError, match=r"silos.count=4: too many for shards over 5 images"):
            partition(np.zeros(5, int), PartitionConfig(kind="shards", shards_per_silo=1), 4, 0)

    def test_classes_without_a_silo(self):
        with pytest.raises(
            ConfigError, match=r"partition.classes_per_silo=2: leaves 4 classes with no silo; use at least 4"
        ):
            partition(self.labels, PartitionConfig(kind="pathological"), 3, 1)

    def test_more_classes_per_silo_than_classes(self):
        with pytest.raises(ConfigError, match=r"partition.classes_per_silo=11: there are only 10 classes"):
            partition(self.labels, PartitionConfig(kind="pathological", classes_per_silo=11), 3, 1)

    def test_own_files_deal_nothing(self):
        with pytest.raises(ConfigError, match=r"own_files"):
            partition(self.labels, PartitionConfig(kind="own_files"), 3, 1)

    def test_alpha_zero(self):
        with pytest.raises(ValueError, match=r"alpha=0.0: must be > 0"):
            PartitionConfig(alpha=0.0)


def test_dealt_silos_together_are_the_training_set(parquet_root):
    config = RunConfig(
        data=DataConfig(source="parquet", path=str(parquet_root)),
        silos=SilosConfig(count=3, partition=PartitionConfig(kind="iid")),
    )
    silos = [load_silo_train(config, i) for i in range(3)]
    whole = load_train(config.data, config.seed)
    assert sorted(i.tobytes() for s in silos for i in s.images) == sorted(i.tobytes() for i in whole.images)
    for one, other in zip(silos, iterate_silo_images(config), strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        assert one.classes == 3
    with pytest.raises(DataError, match=r"silo=3: must be in \[0, 3\)"):
        load_silo_train(config, 3)


def own_files(root, source="parquet", count=2) -> RunConfig:
    return RunConfig(
        data=DataConfig(source=source, path=str(root)),
        silos=SilosConfig(count=count, partition=PartitionConfig(kind="own_files")),
    )


def test_own_parquet_files(tmp_path):
    images = pictures(5)
    write_parquet(tmp_path / "0" / "train.parquet", [png(p) for p in images[:2]], [0, 1])
    write_parquet(tmp_path / "1" / "train.parquet", [png(p) for p in images[2:]], [2, 0, 2])
    first, second = iterate_silo_images(own_files(tmp_path))
    assert np.array_equal(first.images[:, 0], images[:2])
    assert np.array_equal(second.images[:, 0], images[2:])
    assert (first.classes, second.classes) == (3, 3)
    with pytest.raises(DataError, match=r"data\.path='.*/2': is no folder"):
        list(iterate_silo_images(own_files(tmp_path, count=3)))


def test_a_silo_reads_its_own_files_where_no_other_silos_are(tmp_path):
    images = pictures(2)
    write_folder(tmp_path / "1" / "train", images, ["b", "b"], ["a", "b", "c"])
    own = load_silo_train(own_files(tmp_path, "folder"), 1)
    assert np.array_equal(own.images[:, 0], images)
    assert (own.labels.tolist(), own.classes) == ([1, 1], 3)
    with pytest.raises(DataError, match=r"data\.path='.*/0': is no folder"):
        load_silo_train(own_files(tmp_path, "folder"), 0)


def test_own_folders_with_an_empty_class(tmp_path):
    write_folder(tmp_path / "0" / "train", pictures(2), ["a", "b"], ["a", "b"])
    write_folder(tmp_path / "1" / "train", pictures(2), ["b", "b"], ["a", "b"])
    second = load_silo_train(own_files(tmp_path, "folder"), 1)
    assert second.labels.tolist() == [1, 1]


def test_own_folders_that_number_classes_differently_are_refused(tmp_path):
    write_folder(tmp_path / "0" / "train", pictures(2), ["a", "b"], ["a", "b"])
    write_folder(tmp_path / "1" / "train", pictures(2), ["b", "c"], ["b", "c"])
    with pytest.raises(DataError, match=r"numbers its classes otherwise .*; name all classes in every silo"):
        list(iterate_silo_images(own_files(tmp_path, "folder")))


def test_own_files_need_a_source_that_has_files():
    with pytest.raises(ConfigError, match=r"data.source='digits'"):
        load_silo_train(own_files("x", "digits"), 0)


def test_importing_the_loaders_is_light():
    heavy = "{'flwr_datasets', 'datasets', 'sklearn', 'pyarrow', 'torchvision'}"
    code = f"import sys, fedcpsc.data.silo_images; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
