# SPDX-License-Identifier: Apache-2.0
"""Squash, crop or pad: which way of resizing pictures that are not square leaves a teacher the most.

    python -m benchmarks.resize --data /data --out benchmarks/results/resize.json

Square pictures of parquet sources (the training split alone, of which a third is kept aside and measured on) become
longer pictures in four ways that stand for four kinds of owners:

- `framed`: the subject stands anywhere in a frame that is half as long again; the frame goes on as the picture's mirror
  image. Landscape and portrait by turns, at random.
- `cut`: a third of the picture is cut off at random, so that the subject fills what is left. Likewise.
- `landscape`: as `framed`, all landscape, which squashes all pictures alike.
- `panorama`: as `framed`, three times as long as high: the middle often misses the subject.

Each is brought to a square by each way, and the project's small network is trained on it as a silo's teacher.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.record import provenance
from fedcpsc.data.decode import fit_picture
from fedcpsc.data.images import ImageSet
from fedcpsc.data.sources import held_out, load_train
from fedcpsc.silo_config import DataConfig, TeachersConfig
from fedcpsc.training.plain import train_classifier

SOURCES = ("sign_digits", "blood_cells")
FRAMES = ("framed", "cut", "landscape", "panorama")
WAYS = ("squash", "crop", "pad")
SIDE = 32
_TEACHER = TeachersConfig(epochs=15, width=12, batch_size=64, shift=1)
Pixels = npt.NDArray[np.uint8]


def framed(picture: Pixels, frame: str, rng: np.random.Generator) -> Pixels:
    """A picture that is not square, made of a square one: uint8 [H, W, 3]."""
    side = len(picture)
    if frame == "cut":
        short = round(side * 2 / 3)
        at = int(rng.integers(0, side - short + 1))
        wide = picture[at : at + short]
    else:
        more = 2 * side if frame == "panorama" else side // 2
        left = int(rng.integers(0, more + 1))
        wide = np.pad(picture, ((0, 0), (left, more - left), (0, 0)), mode="symmetric")
    if frame != "landscape" and rng.random() < 0.5:  # not the picture is turned, but where it is longer
        if frame == "cut":
            return picture[:, at : at + short]
        return np.pad(picture, ((left, more - left), (0, 0), (0, 0)), mode="symmetric")
    return wide


def resized(images: ImageSet, frame: str, way: Any, seed: int) -> ImageSet:
    """All images in that frame, brought to a square in that way."""
    rng = np.random.default_rng(seed)
    squares = [
        np.asarray(fit_picture(Image.fromarray(framed(picture, frame, rng)), (SIDE, SIDE), way))
        for picture in images.images.transpose(0, 2, 3, 1)
    ]
    return ImageSet(np.stack(squares).transpose(0, 3, 1, 2), images.labels, images.classes)


def measure(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Accuracy on the part kept aside, for each source, frame and way."""
    rows = []
    for source in SOURCES:
        config = DataConfig(source="parquet", path=str(data / source), channels=3)
        images = load_train(config, 0)
        for frame in FRAMES:
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for seed in range(seeds):
                train, aside = held_out(images.labels, 1 / 3, seed)
                for way in WAYS:
                    squares = resized(images, frame, way, seed)
                    network = train_classifier(squares.subset(train), _TEACHER, seed, "convnet")
                    found[way].append(_accuracy(network, squares.subset(aside)))
            for way, values in found.items():
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                row = {"source": source, "frame": frame, "resize": way, "accuracy": values}
                rows.append({**row, "mean": statistics.mean(values), "std": spread})
                print(f"{source:12} {frame:10} {way:7} {rows[-1]['mean']:.4f} +- {spread:.4f}", flush=True)
    return rows


def _accuracy(network: torch.nn.Module, images: ImageSet) -> float:
    with torch.no_grad():
        logits = network(torch.from_numpy(images.images).float().div(127.5).sub(1))
    return float((logits.argmax(1).numpy() == images.labels).mean())


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with sign_digits/ and blood_cells/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("resize.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(given.data, given.seeds)
    settings = {"side": SIDE, "seeds": given.seeds, "teacher": _TEACHER.model_dump(mode="json")}
    given.out.write_text(json.dumps({**provenance(), "settings": settings, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
