# SPDX-License-Identifier: Apache-2.0
"""Pictures as cameras and programs write them: turned, transparent, deep, animated, of any size, damaged."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.data.decode import PictureForm, decode, fit_picture, read_pictures
from fedcpsc.data.pixels import readable_extensions
from fedcpsc.data.sources import load_train
from fedcpsc.errors import ConfigError, DataError
from fedcpsc.silo_config import DataConfig
from fedcpsc.typed_yaml import validate

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)  # 4 rows, 6 columns, no two alike


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def one(data: bytes, **form) -> np.ndarray:
    """The picture alone: uint8 [C, H, W]."""
    return decode([data], str, PictureForm(**form)).images[0]


def oriented(orientation: int, form: str = "PNG") -> bytes:
    """GREY, stored so that a viewer who heeds EXIF sees it upright."""
    stored = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_exif_says(orientation, form):
    found = decode([oriented(orientation, form)], str, PictureForm())
    assert np.array_equal(found.images[0, 0], GREY)
    assert found.sizes == {(6, 4): 1}
    assert found.notes == (() if orientation == 1 else ("1 turned upright, as EXIF says",))


def test_sizes_are_compared_after_turning():
    found = decode([oriented(1), oriented(6), oriented(8)], str, PictureForm())
    assert found.images.shape == (3, 1, 4, 6)


@pytest.mark.parametrize("orientation", [0, 9, 77, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(one(encoded(Image.fromarray(GREY), "PNG", exif=exif))[0], GREY)


def test_damaged_exif_damages_no_picture():
    jpeg = encoded(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert one(jpeg).shape == (1, 4, 6)


def test_transparent_pictures_lie_on_white_or_the_colour_asked_for():
    rgba = np.zeros((4, 6, 4), np.uint8)  # black everywhere
    rgba[:, :3, 3] = 255  # seen in the left half alone
    rgba[0, 5, 3] = 51  # and a fifth of it in one corner
    icon = encoded(Image.fromarray(rgba), "PNG")
    white = one(icon)
    assert white.shape == (3, 4, 6)
    assert (white[:, :, :3] == 0).all()
    assert (white[:, 1:, 3:] == 255).all()
    assert white[:, 0, 5].tolist() == [204, 204, 204]
    assert (one(icon, background="black") == 0).all()
    assert one(icon, background="#0a141e")[:, 3, 5].tolist() == [10, 20, 30]
    assert decode([icon], str, PictureForm()).notes == ("1 transparent in places, laid on white",)


def test_grey_with_alpha_stays_grey_on_a_grey_ground():
    la = np.zeros((4, 6, 2), np.uint8)
    la[..., 0] = 40
    la[:, 2:, 1] = 255
    data = encoded(Image.fromarray(la), "PNG")
    assert one(data)[0, 0].tolist() == [255, 255, 40, 40, 40, 40]
    assert one(data, background="#ff0000").shape == (3, 4, 6)
    opaque = la.copy()
    opaque[..., 1] = 255
    assert (one(encoded(Image.fromarray(opaque), "PNG"), background="#ff0000") == 40).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_colour_that_counts_as_transparent_is_transparent(mode):
    image = Image.new("L", (6, 4), 0)
    image.paste(255, (3, 0, 6, 4))
    image = image.convert(mode)
    data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    found = one(data, channels=1, background="grey")
    assert found[0, 0].tolist() == [128] * 3 + [255] * 3


def test_opaque_pictures_with_alpha_keep_their_pixels():
    colours = pictures(1, channels=3)[0]
    rgba = np.dstack([colours, np.full((6, 6), 255, np.uint8)])
    assert np.array_equal(one(encoded(Image.fromarray(rgba), "PNG")).transpose(1, 2, 0), colours)


def test_sixteen_bits_become_eight_over_the_whole_range():
    deep = np.array([[0, 257, 25_700, 65_535]] * 4, np.uint16)
    found = decode([png(deep)], str, PictureForm())
    assert found.images[0, 0, 0].tolist() == [0, 1, 100, 255]
    assert found.notes == ("1 of 16 bits per channel, of which the upper 8 were taken; no value above 65535",)
    tiff = encoded(Image.fromarray(deep), "TIFF")
    assert np.array_equal(one(tiff), found.images[0])


def test_pixels_without_a_known_range_are_refused():
    for values in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), -7, np.int32), np.full((4, 4), 2**20, np.int32)):
        with pytest.raises(DataError, match=r"image='0': .*convert it to 8 bits per channel"):
            one(encoded(Image.fromarray(values), "TIFF"))


def test_cmyk_and_ycbcr_are_colours():
    colours = Image.new("RGB", (6, 4), (250, 10, 20))
    for image, form in ((colours.convert("CMYK"), "TIFF"), (colours.convert("YCbCr"), "TIFF")):
        assert np.abs(one(encoded(image, form))[:, 0, 0].astype(int) - [250, 10, 20]).max() <= 2
    jpeg = one(encoded(colours.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(jpeg[:, 0, 0].astype(int) - [250, 10, 20]).max() <= 8


def test_one_bit_is_black_and_white():
    image = Image.fromarray(GREY > 100)
    assert np.array_equal(one(encoded(image, "PNG"))[0], np.where(GREY > 100, 255, 0))


def test_the_first_picture_of_a_film_is_taken_and_that_is_said():
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    gif = encoded(first, "GIF", save_all=True, append_images=[second])
    found = decode([gif], str, PictureForm(channels=1))
    assert np.array_equal(found.images[0, 0], GREY)
    assert found.notes == ("1 of files with several pictures, of which the first was taken",)


def test_every_form_that_pillow_reads_is_listed_and_none_that_starts_programs():
    assert {".gif", ".jfif", ".webp", ".tiff", ".tif", ".bmp", ".avif", ".jp2", ".png"} <= readable_extensions()
    assert not {".eps", ".ps", ".wmf", ".emf", ".h5"} & readable_extensions()
    with pytest.raises(DataError, match="cannot be decoded"):
        one(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")


class TestFit:
    def test_squash_scales_each_side_by_itself(self):
        image = Image.fromarray(GREY)
        assert np.array_equal(fit_picture(image, (2, 2), "squash"), image.resize((2, 2), Image.Resampling.BILINEAR))

    def test_crop_takes_the_middle_in_the_wanted_proportions(self):
        wide = Image.fromarray(np.array([[0, 0, 50, 60, 0, 0]] * 2, np.uint8))
        assert np.asarray(fit_picture(wide, (2, 2), "crop")).tolist() == [[50, 60]] * 2
        tall = wide.transpose(Image.Transpose.TRANSPOSE)
        assert np.asarray(fit_picture(tall, (2, 2), "crop")).tolist() == [[50, 50], [60, 60]]

    def test_pad_keeps_proportions_and_fills_the_borders(self):
        wide = Image.new("L", (6, 3), 100)
        assert np.asarray(fit_picture(wide, (4, 4), "pad"))[:, 0].tolist() == [255, 100, 100, 255]
        assert np.asarray(fit_picture(wide, (4, 4), "pad", "black"))[:, 0].tolist() == [0, 100, 100, 0]
        assert fit_picture(Image.new("RGB", (6, 3)), (4, 4), "pad", "#010203").getpixel((0, 0)) == (1, 2, 3)

    @pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
    def test_pictures_of_the_wanted_proportions_are_the_same_under_all_three(self, resize):
        image = Image.fromarray(pictures(1, 9)[0])
        wanted = np.asarray(image.resize((6, 6), Image.Resampling.BILINEAR))
        assert np.array_equal(fit_picture(image, (6, 6), resize), wanted)
        assert fit_picture(image, (9, 9), resize) is image

    @pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
    @pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
    def test_tiny_and_thin_pictures_are_fitted_without_large_ones_between(self, resize, size):
        assert fit_picture(Image.new("L", size, 7), (8, 8), resize).size == (8, 8)

    def test_an_owners_own_pictures_get_a_teachers_shape(self, tmp_path):
        (tmp_path / "a.png").write_bytes(oriented(6))
        found = read_pictures([tmp_path / "a.png", GREY], (3, 5, 7), "pad")
        assert found.shape == (2, 3, 5, 7)
        assert np.array_equal(found[0], found[1])
        with pytest.raises(DataError, match=r"image_shape=\(2, 5, 7\): pictures have 1 channel \(grey\) or 3"):
            read_pictures([GREY], (2, 5, 7))
        with pytest.raises(DataError, match=r"nowhere.png': cannot be decoded"):
            read_pictures([tmp_path / "nowhere.png"], (3, 5, 7))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_the_configuration_names_the_way_of_resizing(tmp_path, resize):
    wide = np.zeros((4, 5, 10), np.uint8)
    wide[:, :, :5] = 200
    write_folder(tmp_path / "train", wide, ["a", "b"] * 2, ["a", "b"])
    write_folder(tmp_path / "test", wide[:2], ["a", "b"], ["a", "b"])
    train = load_train(DataConfig(source="folder", path=str(tmp_path), image_size=5, resize=resize), 1)
    assert np.array_equal(train.images[0, 0], fit_picture(Image.fromarray(wide[0]), (5, 5), resize))
    words = {"squash": "squashed", "crop": "cropped", "pad": "padded"}[resize]
    assert f"  sizes: 4 of 10x5 (width x height), {words} to 5x5" in list(train.reading.lines())


@pytest.mark.parametrize("background", ["whitish", "#12345", "rgb(1,2,3)", ""])
def test_a_background_is_a_colour_of_the_list(background):
    with pytest.raises(ConfigError, match="background"):
        validate(DataConfig, {"background": background}, "run.yaml")


class TestDamage:
    def mixed(self, tmp_path, damaged: int, whole: int = 4):
        good = png(pictures(1)[0])
        rows = [good] * whole + [good[:40]] * damaged
        write_parquet(tmp_path / "train.parquet", rows, [i % 2 for i in range(len(rows))])
        write_parquet(tmp_path / "test.parquet", [good], [0])
        return {"source": "parquet", "path": str(tmp_path)}

    def test_all_damaged_pictures_are_counted_and_named(self, tmp_path):
        config = self.mixed(tmp_path, 60, 1000)
        with pytest.raises(DataError) as error:
            load_train(DataConfig(**config), 1)
        message = str(error.value)
        assert "60 of 1060 cannot be decoded" in message
        assert all(f"train.parquet, row {row}" in message for row in range(1000, 1050))
        assert "and 10 more" in message
        assert "data.skip_damaged: true" in message

    def test_by_choice_they_are_left_out_and_that_is_said(self, tmp_path):
        train = load_train(DataConfig(**self.mixed(tmp_path, 2), skip_damaged=True), 1)
        assert train.labels.tolist() == [0, 1, 0, 1]
        (left_out,) = train.reading.left_out
        assert (left_out.reason, left_out.count) == ("picture(s) that cannot be decoded", 2)
        assert "row 4 (" in left_out.examples[0]
        assert any("left out: 2 picture(s) that cannot be decoded, such as" in line for line in train.reading.lines())

    def test_persons_go_with_the_pictures_that_stay(self, tmp_path):
        good = png(pictures(1)[0])
        rows = [good, good[:40], good, good]
        write_folder(tmp_path / "train", pictures(4), ["a", "b"] * 2, ["a", "b"])
        (tmp_path / "train" / "a" / "000.png").write_bytes(rows[1])
        (tmp_path / "persons.csv").write_text("picture,person\na/000.png,p\na/002.png,q\nb/001.png,r\nb/003.png,s\n")
        (tmp_path / "test").mkdir()
        config = {"source": "folder", "path": str(tmp_path), "persons": {"kind": "file", "file": "persons.csv"}}
        train = load_train(validate(DataConfig, {**config, "skip_damaged": True}, "test"), 1)
        assert train.persons.tolist() == ["q", "r", "s"]

    def test_where_all_are_damaged_nothing_is_left_out(self, tmp_path):
        with pytest.raises(DataError, match=r"3 of 3 cannot be decoded"):
            load_train(DataConfig(**self.mixed(tmp_path, 3, 0), skip_damaged=True), 1)

    def test_a_picture_that_claims_to_be_huge_is_damaged(self):
        data = png(GREY)
        at = data.index(b"IHDR") + 4
        data = data[:at] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + data[at + 8 :]
        with pytest.raises(DataError, match="cannot be decoded"):
            one(data)

    def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(self, monkeypatch):
        class Memory:
            available = 100

        monkeypatch.setattr("psutil.virtual_memory", Memory)
        with pytest.raises(DataError, match=r"data.image_size=None: 5 images of 6x4 need .* GB, of which .* free; set"):
            decode([GREY] * 5, str, PictureForm())
