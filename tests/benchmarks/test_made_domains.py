# SPDX-License-Identifier: Apache-2.0
"""The domains that are made for the benchmarks: read by the product, fonts kept apart, negatives exact."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFont

from benchmarks import made_domains
from fedcpsc.config import RunConfig
from fedcpsc.data.sources import load_evaluation
from fedcpsc.typed_yaml import validate


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory):
    """A folder with the folder mnist: three pictures a split."""
    root = tmp_path_factory.mktemp("data")
    (root / "mnist").mkdir()
    stream = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for _ in range(3):
            encoded = io.BytesIO()
            Image.fromarray(stream.integers(0, 256, (28, 28), dtype=np.uint8)).save(encoded, "png")
            rows.append({"bytes": encoded.getvalue()})
        pq.write_table(pa.table({"image": rows, "label": [0, 1, 0]}), root / "mnist" / f"{split}.parquet")
    return root


@pytest.fixture(scope="module")
def made(small_mnist):
    """Folder of all domains, with two pictures of each character and font."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["made_domains", "--data", str(small_mnist), "--out", str(small_mnist / "made")])
        patch.setattr(made_domains, "_TRAINING_FONTS", made_domains._TRAINING_FONTS[:2])
        patch.setattr(made_domains, "_TEST_FONTS", made_domains._TEST_FONTS[:1])
        assert made_domains.main() == 0
    return small_mnist / "made"


def pictures(path):
    """Pixels of all pictures of a file, and their labels."""
    table = pq.read_table(path)
    read = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table["image"].to_pylist()]
    return np.stack(read), table["label"].to_pylist()


@pytest.mark.parametrize(("name", "classes"), [("letters", 26), ("glyphs", 94), ("mnist_negative", 2)])
def test_the_product_reads_what_was_made(made, name, classes):
    config = validate(RunConfig, {"data": {"source": "parquet", "path": str(made / name)}}, "run")
    found = load_evaluation(config.data, config.seed)
    assert found.classes == classes
    assert found.image_shape == ((1, 28, 28) if name == "mnist_negative" else (1, 32, 32))


def test_a_character_is_bright_on_dark_and_each_picture_another(made):
    seen, labels = pictures(made / "letters" / "train.parquet")
    assert len(labels) == 26 * 2 * 16
    assert labels.count(3) == 2 * 16
    assert (np.median(seen, axis=(1, 2)) < 60).all()
    assert (seen.max(axis=(1, 2)) > 120).all()
    assert len(np.unique(seen.reshape(len(seen), -1), axis=0)) == len(seen)


def test_no_font_of_the_test_split_is_one_of_the_training_split():
    assert not set(made_domains._TRAINING_FONTS) & set(made_domains._TEST_FONTS)
    for font in (*made_domains._TRAINING_FONTS, *made_domains._TEST_FONTS):  # matplotlib brings every one
        path = made_domains.Path(made_domains.matplotlib.get_data_path()) / "fonts/ttf" / f"{font}.ttf"
        ImageFont.truetype(str(path), 20)


def test_a_negative_is_255_less_the_pixel_and_keeps_its_label(made, small_mnist):
    ours, labels = pictures(made / "mnist_negative" / "test.parquet")
    theirs, as_labelled = pictures(small_mnist / "mnist" / "test.parquet")
    assert (ours == 255 - theirs).all()
    assert labels == as_labelled


def test_what_is_there_stays(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"somebody's")
    made_domains.write(path, [(Image.new("L", (4, 4)), 0)])
    assert path.read_bytes() == b"somebody's"
