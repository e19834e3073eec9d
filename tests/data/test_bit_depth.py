# SPDX-License-Identifier: Apache-2.0
"""Pictures of 16 bits per channel: grey and colour, of the whole range or a part, from black up or from white down."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fedcpsc.data.decode import Decoded, PictureForm, decode
from fedcpsc.errors import DataError

RAMP = np.tile(np.linspace(0, 65_535, 8).astype(np.uint16), (8, 1))
UPPER = (RAMP >> 8).tolist()
OPAQUE = np.full((8, 8), 65_535, np.uint16)


def png(pixels: np.ndarray, colour_type: int) -> bytes:
    """PNG of 16 bits per channel: Pillow writes none but grey ones."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, photometric: int, *, planes: bool = False) -> bytes:
    """TIFF of 16 bits per channel without compression, its channels in turn or one after another."""
    height, width, channels = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    strips = [pixels[..., k] for k in range(channels)] if planes else [pixels]
    sizes, data = [strip.size * 2 for strip in strips], b"".join(strip.astype("<u2").tobytes() for strip in strips)
    starts = np.cumsum([8, *sizes])[:-1].tolist()
    values = [
        (256, [width]),
        (257, [height]),
        (258, [16] * channels),
        (259, [1]),
        (262, [photometric]),
        (273, starts),
        (277, [channels]),
        (278, [height]),
        (279, sizes),
        (284, [2 if planes else 1]),
    ]
    directory, beyond, end = b"", b"", 8 + len(data)
    for tag, numbers in values:
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(packed) > 4:
            beyond, packed = beyond + packed, struct.pack("<I", end + len(beyond))
        directory += struct.pack("<HHI", tag, 3, len(numbers)) + packed.ljust(4, b"\0")
    place = end + len(beyond)
    head = b"II*\0" + struct.pack("<I", place)
    return head + data + beyond + struct.pack("<H", len(values)) + directory + b"\0" * 4


def sgi(pixels: np.ndarray) -> bytes:
    height, width, channels = pixels.shape
    head = struct.pack(">HBBHHHH", 474, 0, 2, 3, width, height, channels).ljust(512, b"\0")
    return head + pixels[::-1].transpose(2, 0, 1).astype(">u2").tobytes()


def of_channels(grey: np.ndarray, count: int, *, alpha: bool = False) -> np.ndarray:
    return np.dstack([*[grey] * count, *([OPAQUE] if alpha else [])])


def coded(grey: np.ndarray) -> dict[str, bytes]:
    """The same picture in every form of 16 bits per channel."""
    return {
        "grey PNG": png(grey, 0),
        "colour PNG": png(of_channels(grey, 3), 2),
        "grey PNG with alpha": png(of_channels(grey, 1, alpha=True), 4),
        "colour PNG with alpha": png(of_channels(grey, 3, alpha=True), 6),
        "grey TIFF": tiff(grey, 1),
        "colour TIFF": tiff(of_channels(grey, 3), 2),
        "colour TIFF with alpha": tiff(of_channels(grey, 3, alpha=True), 2),
        "SGI": sgi(of_channels(grey, 3)),
    }


def read(*data: bytes, **form) -> Decoded:
    return decode(data, str, PictureForm(**form))


@pytest.mark.parametrize("form", coded(RAMP))
def test_the_upper_eight_bits_are_taken_of_every_form_and_that_is_said(form):
    found = read(coded(RAMP)[form], channels=1)
    assert np.abs(found.images[0, 0].astype(int) - UPPER).max() <= 1
    assert found.notes == ("1 of 16 bits per channel, of which the upper 8 were taken; no value above 65535",)


@pytest.mark.parametrize("form", coded(RAMP))
def test_pictures_of_which_hardly_anything_would_be_seen_are_refused(form):
    twelve = coded(RAMP >> 4)[form]
    with pytest.raises(DataError, match=r"images=2: 2 have 16 bits per channel and no value above 4095: .*8 bits"):
        read(twelve, twelve)


def test_jpeg_2000_of_sixteen_bits_is_seen_by_its_code_stream():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    assert read(bytes(data)).notes == ()
    first = data.index(b"\xff\x4f\xff\x51") + 42
    data[first : first + 9 : 3] = bytes([15] * 3)  # each component's bits - 1
    found = read(bytes(data))
    assert found.images.min() == found.images.max() == 128  # the middle of the range, less what was coded
    assert found.notes[0].startswith("1 of 16 bits per channel")


def test_each_picture_is_judged_by_itself():
    dark, bright = png(RAMP >> 4, 0), png(RAMP, 0)
    one_point = RAMP >> 4
    one_point[3, 3] = 65_535
    with pytest.raises(DataError, match=r"images=4: 3 of 4 have 16 bits per channel and no value above 4095"):
        read(dark, dark, dark, png(one_point, 0))
    assert read(dark, bright, bright).notes == (
        "3 of 16 bits per channel, of which the upper 8 were taken; no value above 65535",
        "1 of these with no value above 4095, so that hardly anything of them is seen",
    )


def test_pictures_of_eight_bits_may_be_dark():
    black = io.BytesIO()
    Image.new("RGB", (8, 8), (3, 2, 1)).save(black, "BMP")
    assert read(black.getvalue()).notes == ()


def test_grey_that_counts_from_white_is_read_as_it_looks():
    found = read(tiff(RAMP, 1), tiff(65_535 - RAMP, 0))
    assert np.array_equal(found.images[0], found.images[1])


def test_planes_of_sixteen_bits_that_would_be_read_as_eight_are_refused():
    with pytest.raises(DataError, match=r"has 16 bits per channel, and its channels one after another; convert it"):
        read(tiff(of_channels(RAMP, 3), 2, planes=True))


def test_a_transparent_value_of_sixteen_bits_is_refused():
    data = png(of_channels(RAMP, 3), 2)
    kind, value = b"tRNS", struct.pack(">HHH", 9362, 9362, 9362)
    chunk = struct.pack(">I", 6) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
    at = data.index(b"IDAT") - 4
    with pytest.raises(DataError, match="has 16 bits per channel and a transparent value"):
        read(data[:at] + chunk + data[at:])
