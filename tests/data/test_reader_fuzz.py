# SPDX-License-Identifier: Apache-2.0
"""2,000 damaged files and folders: each is read, or explained by an error of this project; memory stays bounded."""

import io
import resource

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.picture_sources import pictures, png, write_folder, write_parquet

from fedcpsc.data.sources import load_train
from fedcpsc.errors import DataError
from fedcpsc.silo_config import DataConfig

CASES = 2_000
FORMS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "TGA", "ICO", "PCX", "SGI")
MOST_MIB = 400  # of growth; the sources here are a few kilobytes


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut off, doubled or put in."""
    array = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(1, len(array))))
        kind = rng.integers(0, 5)
        if kind == 0 and array:
            array[at % len(array)] = int(rng.integers(0, 256))
        elif kind == 1:
            array[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"])
        elif kind == 2:
            del array[at:]
        elif kind == 3:
            array[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 30)), dtype=np.uint8))
        else:
            del array[at : at + int(rng.integers(1, 30))]
    return bytes(array)


def encoded(form: str, rng: np.random.Generator) -> bytes:
    mode = str(rng.choice(["L", "RGB", "RGBA", "P", "1", "CMYK"]))
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 12))
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, exif=exif)
    except (OSError, ValueError, TypeError):  # not every format has every mode
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, form)
    return buffer.getvalue()


def read(root, source: str, rng: np.random.Generator) -> bool:
    """Whether it could be read; whatever else is raised than the project's error ends the test."""
    config = DataConfig(
        source=source,
        path=str(root),
        image_size=[None, 6][rng.integers(0, 2)],
        channels=[None, 1, 3][rng.integers(0, 3)],
        resize=str(rng.choice(["squash", "crop", "pad"])),
        skip_damaged=bool(rng.integers(0, 2)),
    )
    try:
        images = load_train(config, 1)
        lines = list(images.reading.lines())
    except DataError as error:
        lines = [str(error)]
    assert all(line.isprintable() and len(line) < 20_000 for line in lines)
    return len(lines) > 1


@pytest.fixture
def bounded():
    """Memory of this process may grow by `MOST_MIB` and no more."""
    read_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - read_before) / 1024
    assert grown < MOST_MIB


def test_damaged_pictures_folders_and_tables_are_read_or_explained(tmp_path, bounded):
    rng = np.random.default_rng(15)
    readable = 0
    good = [png(p) for p in pictures(6)]
    folder, table = tmp_path / "folder", tmp_path / "table"
    write_folder(folder / "train", pictures(6), ["a", "b"] * 3, ["a", "b"])
    write_parquet(table / "train.parquet", good, [0, 1] * 3, ["a", "b"])
    whole = (table / "train.parquet").read_bytes()
    for case in range(CASES):
        if case % 2:  # a table whose bytes are damaged
            (table / "train.parquet").write_bytes(mutated(whole, rng))
            readable += read(table, "parquet", rng)
            continue
        form = FORMS[case // 2 % len(FORMS)]
        data = encoded(form, rng)
        data = data if case % 3 == 0 else mutated(data, rng)
        if case % 4:  # a picture in a folder
            path = folder / "train" / "ab"[case % 3 == 0] / f"x{rng.choice(['.png', '.gif', '.tif', '.txt', ''])}"
            path.write_bytes(data)
            readable += read(folder, "folder", rng)
            path.unlink()
        else:  # a picture in a table
            labels = rng.choice([0, 1, 2, -1, 2**40], 6).tolist()
            write_parquet(table / "train.parquet", [*good[:5], data], labels)
            readable += read(table, "parquet", rng)
    assert CASES / 10 < readable < CASES


NAMES = (
    "a",
    "b",
    "A",
    " a",
    "\x1b[31m",
    "é",
    "e\u0301",
    "x" * 200,
    ".hidden",
    "@eaDir",
    "__MACOSX",
    "1",
    "10",
    "2",
    "con",
)


def test_trees_of_any_names_are_read_or_explained(tmp_path, bounded):
    rng = np.random.default_rng(16)
    data = [png(p) for p in pictures(3)] + [b"", b"text"]
    readable = 0
    for case in range(200):
        root = tmp_path / str(case)
        for _ in range(rng.integers(1, 9)):
            parts = [str(NAMES[i]) for i in rng.integers(0, len(NAMES), int(rng.integers(0, 4)))]
            place = root / str(rng.choice(["train", "train", "train", "test"])) / "/".join(parts)
            place.mkdir(parents=True, exist_ok=True)
            for k in range(rng.integers(0, 4)):
                (place / f"f{k}{rng.choice(['.png', '.PNG', '.gif', '.txt', '', '.jpg'])}").write_bytes(
                    data[rng.integers(0, 3 if rng.random() < 0.8 else 5)]
                )
        readable += read(root, "folder", rng)
    assert readable > 5


VALUES = (0, 1, 2.5, -1, 2**63 - 1, None, "a", "", b"x", True, [1], {"bytes": b"x"}, {"names": ["a"]})


def test_tables_of_any_columns_are_read_or_explained(tmp_path, bounded):
    import pyarrow as pa

    rng = np.random.default_rng(17)
    good = [png(p) for p in pictures(4)]
    image = pa.array([{"bytes": data, "path": None} for data in good])
    for _ in range(200):
        kind = VALUES[rng.integers(0, len(VALUES))]
        columns = {"image": image, "label": pa.array([0, 1, 0, 1])}
        which = ("image", "label")[rng.integers(0, 2)]
        columns[which] = pa.array([kind, kind if rng.random() < 0.5 else None, kind, kind])
        metadata = [b"", b"{", b"[" * 5000, b'{"info": {"features": {"label": 3}}}', b"\xff", b'{"info": null}']
        table = pa.table(columns).replace_schema_metadata({"huggingface": metadata[rng.integers(0, len(metadata))]})
        pq.write_table(table, tmp_path / "train.parquet")
        read(tmp_path, "parquet", rng)
