# SPDX-License-Identifier: Apache-2.0
"""The server's own pictures: found in any folder or table without labels, read as strictly as the silos' own."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image
from support.picture_sources import pictures, png, write_parquet

from fedcpsc.data import unlabelled
from fedcpsc.data.unlabelled import find_pictures, read_found
from fedcpsc.errors import DataError
from fedcpsc.public_config import PublicConfig

SHAPE = (3, 8, 8)


def write(folder, count=12, channels=3, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(pictures(count, channels=channels, **options)):
        (folder / f"{i:03}.png").write_bytes(png(pixels))
    return folder


def read(path, shape=SHAPE, seed=1, **changes):
    config = PublicConfig(path=str(path), **changes)
    return read_found(find_pictures(config), config, shape, seed)


def test_every_picture_below_a_folder_is_found_whatever_the_folders_are_called(tmp_path):
    write(tmp_path / "cats", 6)
    write(tmp_path / "dogs/old", 6, seed=1)
    write(tmp_path / ".cache", 3)
    (tmp_path / "cats/notes.txt").write_text("no picture")
    found = read(tmp_path)
    assert found.images.shape == (12, 3, 16, 16), "small images are kept at twice their size"
    assert found.images.dtype == np.uint8
    text = "\n".join(found.report.lines())
    assert text.startswith("the server's own pictures, without labels: 12, from ")
    assert "3 file(s) hidden" in text
    assert "1 file(s) not a picture, by its extension, such as cats/notes.txt" in text
    assert "class" not in text
    assert found.name == tmp_path.name


def test_of_a_labelled_data_set_the_training_folder_alone_is_read(tmp_path):
    write(tmp_path / "train/cats", 10)
    write(tmp_path / "test/cats", 10, seed=1)
    found = read(tmp_path)
    assert len(found.images) == 10
    assert any("train/ alone" in note for note in found.report.notes)


def test_parquet_needs_no_labels_and_reads_none(tmp_path):
    encoded = [png(p) for p in pictures(12, channels=3)]
    write_parquet(tmp_path / "train.parquet", encoded, ["x"] * 12)
    with_labels = read(tmp_path, source="parquet")
    table = pq.read_table(tmp_path / "train.parquet").drop_columns("label")
    pq.write_table(table, tmp_path / "pile.parquet")
    without = read(tmp_path / "pile.parquet", source="parquet")
    np.testing.assert_array_equal(with_labels.images, without.images)
    assert with_labels.digest == without.digest
    assert without.name == "pile.parquet"


def test_pictures_are_upright_opaque_and_of_the_silos_channels(tmp_path):
    write(tmp_path, 12)
    half = Image.new("RGB", (8, 4), "black")
    half.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    half.save(tmp_path / "a.jpg", exif=exif, quality=100)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "b.png")
    found = read(tmp_path, (1, 8, 8), background="white")
    assert found.images.shape == (14, 1, 16, 16)
    turned = found.images[12, 0]  # a.jpg, whose left half is white
    assert turned[:5].min() > 200
    assert turned[-5:].max() < 50
    assert found.images[-1].min() == 255, "b.png on white"
    assert {"1 turned upright, as EXIF says", "1 transparent in places, laid on white"} <= set(found.report.notes)


@pytest.mark.parametrize(("resize", "left"), [("squash", 0), ("crop", 255), ("pad", 128)])
def test_proportions_are_brought_to_the_silos_as_configured(tmp_path, resize, left):
    write(tmp_path, 10, size=8)
    wide = np.full((4, 12, 3), 255, np.uint8)
    wide[:, :3] = 0
    Image.fromarray(wide).save(tmp_path / "z.png")
    image = read(tmp_path, resize=resize, background="grey").images[-1]
    assert abs(int(image[:, 0, 0].mean()) - left) < 2


def test_damaged_pictures_are_named_or_left_out_as_wished(tmp_path):
    write(tmp_path, 12)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png.*synthesis\.public\.skip_damaged: true"):
        read(tmp_path)
    found = read(tmp_path, skip_damaged=True)
    assert len(found.images) == 12
    assert any("broken.png" in str(item) for item in found.report.left_out)


def test_rows_without_an_image_are_named_or_left_out_as_wished(tmp_path):
    path = tmp_path / "pile.parquet"
    write_parquet(path, [*[png(p) for p in pictures(12)], None], [0] * 13)
    with pytest.raises(DataError, match=r"image_column='image': 1 of 13 rows .*row 12.*public\.skip_damaged"):
        read(path, source="parquet")
    assert len(read(path, source="parquet", skip_damaged=True).images) == 12


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (lambda root: root / "nowhere", {}, "is not there"),
        (lambda root: write(root, 0), {}, "0 pictures were found there, there must be at least 10"),
        (lambda root: write(root, 9), {}, r"9 pictures .*photographs"),
        (lambda root: write(root, 12) / "000.png", {}, r"is no folder; .*source: parquet"),
        (lambda root: write(root, 12), {"source": "parquet"}, "has no train.parquet"),
        (lambda root: write(root, 12) / "000.png", {"source": "parquet"}, r"synthesis\.public\.path=.*cannot be read"),
    ],
)
def test_what_cannot_be_a_source_is_refused_before_anything_is_decoded(tmp_path, made, options, message):
    with pytest.raises(DataError, match=message):
        find_pictures(PublicConfig(path=str(made(tmp_path / "own")), **options))


def test_a_misnamed_column_or_one_of_text_names_the_key_of_the_public_pictures(tmp_path):
    write_parquet(tmp_path / "train.parquet", [png(p) for p in pictures(12)], ["a"] * 12)
    with pytest.raises(DataError, match=r"synthesis\.public\.image_column='img'.*use one of: image, label"):
        read(tmp_path, source="parquet", image_column="img")
    with pytest.raises(DataError, match=r"synthesis\.public\.image_column='label'.*must hold images"):
        read(tmp_path, source="parquet", image_column="label")


def test_silos_of_neither_grey_nor_colour_images_get_none(tmp_path):
    with pytest.raises(DataError, match="the silos' images have 2 channels"):
        read(write(tmp_path), (2, 8, 8))


def test_a_sample_is_drawn_by_the_seed_where_there_are_more_than_wanted_or_than_fit(tmp_path, monkeypatch):
    write(tmp_path, 30)
    few, again, other = (read(tmp_path, limit=12, seed=seed) for seed in (1, 1, 2))
    assert len(few.images) == 12
    assert any("of 30 pictures 12 were drawn by the seed" in note for note in few.report.notes)
    np.testing.assert_array_equal(few.images, again.images)
    assert few.digest == again.digest != other.digest
    monkeypatch.setattr(unlabelled, "_MOST_BYTES", 15 * 3 * 16 * 16)
    assert len(read(tmp_path).images) == 15


def test_large_images_are_kept_at_their_own_size(tmp_path):
    found = read(write(tmp_path, 10), (3, 96, 80))
    assert (found.zoom, found.images.shape) == (1, (10, 3, 96, 80))


def test_the_digest_is_that_of_the_pictures_not_of_their_names(tmp_path):
    one = read(write(tmp_path / "one"))
    moved = shutil.copytree(tmp_path / "one", tmp_path / "other/deep")
    assert read(moved.parent).digest == one.digest
    (moved / "000.png").write_bytes(png(pictures(1, channels=3, seed=9)[0]))
    assert read(moved.parent).digest != one.digest


def test_images_as_bytes_and_as_structs_are_the_same(tmp_path):
    encoded = [png(p) for p in pictures(12)]
    pq.write_table(pa.table({"image": encoded}), tmp_path / "a.parquet")
    write_parquet(tmp_path / "b.parquet", encoded, [0] * 12)
    first, second = (read(tmp_path / name, source="parquet") for name in ("a.parquet", "b.parquet"))
    assert first.digest == second.digest
    assert first.images.tobytes() == second.images.tobytes()
    assert Image.open(io.BytesIO(encoded[0])).mode == "L"
    assert first.images.shape[1] == 3, "the silos' channels, not the files'"
