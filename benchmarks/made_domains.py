# SPDX-License-Identifier: Apache-2.0
"""Pictures of domains that nobody tuned for, made of what is at hand: letters and glyphs of fonts, negatives.

    python -m benchmarks.made_domains --data ../data --out ../made

`letters` (26 classes) and `glyphs` (94: all that ASCII prints) are drawn with the fonts that matplotlib brings, moved,
turned, scaled and in grey tones; fonts of the test split are no fonts of the training split. `mnist_negative` is
MNIST with black and white exchanged. Each is a folder with train.parquet and test.parquet, as `data.source: parquet`
reads it.
"""

from __future__ import annotations

import argparse
import io
import string
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

_SIDE = 32
_TRAINING_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-BoldOblique", "DejaVuSerif",
    "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "cmb10", "cmss10",
)  # fmt: skip
_TEST_FONTS = ("DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralItalic", "cmr10")
_PRINTED = "".join(sorted(string.ascii_letters + string.digits + string.punctuation))


def drawn(character: str, font: str, stream: np.random.Generator) -> Image.Image:
    """A grey picture of 32x32 pixels of one character, bright on dark.

    Args:
        character: the character.
        font: name of a font that matplotlib brings.
        stream: source of place, turn, size and tones.
    """
    path = Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), int(stream.integers(18, 27)))
    dark, bright = int(stream.integers(0, 60)), int(stream.integers(170, 256))
    canvas = Image.new("L", (_SIDE, _SIDE), dark)
    left, top, right, bottom = face.getbbox(character)
    place = [(_SIDE - (low + high)) / 2 + stream.uniform(-2, 2) for low, high in ((left, right), (top, bottom))]
    ImageDraw.Draw(canvas).text((place[0], place[1]), character, fill=bright, font=face)
    return canvas.rotate(stream.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor=dark)


def characters(
    names: Sequence[str], fonts: Sequence[str], each: int, stream: np.random.Generator
) -> Iterator[tuple[Image.Image, int]]:
    """Pictures with their class numbers, `each` of every character and font."""
    for label, character in enumerate(names):
        for font in fonts:
            for _ in range(each):
                yield drawn(character, font, stream), label


def negatives(path: Path) -> Iterator[tuple[Image.Image, int]]:
    """The pictures of a parquet file in Hugging Face form with light and dark exchanged."""
    table = pq.read_table(path)
    for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
        yield ImageOps.invert(Image.open(io.BytesIO(image["bytes"])).convert("L")), label


def write(path: Path, pictures: Iterable[tuple[Image.Image, int]]) -> None:
    """Writes a parquet file with the columns `image.bytes` and `label`; one that is there stays."""
    if path.exists():
        return
    images, labels = [], []
    for picture, label in pictures:
        encoded = io.BytesIO()
        picture.save(encoded, "png")
        images.append({"bytes": encoded.getvalue()})
        labels.append(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.with_suffix(".part")
    pq.write_table(pa.table({"image": images, "label": labels}), begun)
    begun.rename(path)  # whole, or not there
    print(f"{path}: {len(labels):,} pictures", flush=True)


def main() -> int:
    """Makes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the folder mnist")
    parser.add_argument("--out", type=Path, required=True, help="folder of the folders that are made")
    given = parser.parse_args()
    for name, classes, each in (("letters", string.ascii_uppercase, 16), ("glyphs", _PRINTED, 8)):
        for split, fonts, count, seed in (("train", _TRAINING_FONTS, each, 1), ("test", _TEST_FONTS, 8, 2)):
            stream = np.random.default_rng(seed)
            write(given.out / name / f"{split}.parquet", characters(classes, fonts, count, stream))
    for split in ("train", "test"):
        write(given.out / "mnist_negative" / f"{split}.parquet", negatives(given.data / "mnist" / f"{split}.parquet"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
