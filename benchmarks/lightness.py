# SPDX-License-Identifier: Apache-2.0
"""What a teacher's answers tell about images of each lightness, and the lightness that a run would find in them.

    python -m benchmarks.lightness --data ../data --out benchmarks/results/lightness.json

One teacher a data set, the project's small network on its training images; 2,000 images of the default priors of any
lightness, bent as a run bends its first ones. What is found is compared with the mean of the data set's own pixels,
which only this benchmark looks at. No test split is read.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import provenance
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.data.images import ImageSet, to_pixels, to_uint8
from fedcpsc.data.sources import load_train
from fedcpsc.distillation.tones import GRID, information, most_telling
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.silo_config import DataConfig, TeachersConfig
from fedcpsc.training.plain import train_classifier

IMAGES = 2000
SHOWN = (-0.8, -0.4, 0.0, 0.4, 0.8)
DATA: dict[str, tuple[dict[str, Any], int, bool]] = {  # source, epochs of the teacher, inverted
    "digits 8x8": ({}, 25, False),
    "MNIST 16x16": ({"path": "{data}/mnist", "image_size": 16, "train_limit": 6000}, 4, False),
    "MNIST 16x16, inverted": ({"path": "{data}/mnist", "image_size": 16, "train_limit": 6000}, 4, True),
    "hand photographs 24x24": ({"path": "{data}/sign_digits", "image_size": 24}, 15, False),
    "blood cells 32x32": ({"path": "{data}/blood_cells", "image_size": 32}, 4, False),
    "CIFAR-10 16x16": ({"path": "{data}/cifar10", "image_size": 16, "train_limit": 10000}, 6, False),
}


def measure(name: str, data: str, seed: int) -> dict[str, Any]:
    """One data set and seed."""
    source, epochs, inverted = DATA[name]
    if source:
        source = {"source": "parquet", **source, "path": source["path"].format(data=data)}
    train = load_train(DataConfig.model_validate(source), seed)
    if inverted:
        train = ImageSet(255 - train.images, train.labels, train.classes)
    teacher = train_classifier(train, TeachersConfig(epochs=epochs, width=16), seed, "convnet")
    stream = torch.Generator().manual_seed(seed)
    mixture = dict.fromkeys(DEFAULT_MIXTURE, 1.0)
    images = to_uint8(sample_prior(mixture, IMAGES, train.image_shape, stream, Tones(0.0, anywhere=1.0)))
    with torch.no_grad():
        answers = torch.cat([torch.softmax(teacher(to_pixels(part)), 1) for part in images.split(250)]).numpy()
    told = information(images.flatten(1).double().mean(1).numpy() / 127.5 - 1, answers) / np.log(train.classes)
    found = most_telling(told)
    assert found is not None, "nothing was found"
    return {
        "seed": seed,
        "pixels": float(train.images.mean() / 127.5 - 1),
        "told": {f"{at:.1f}": round(float(np.interp(at, GRID, told)), 3) for at in SHOWN},
        "mean": found.mean,
        "spread": found.spread,
    }


def summary(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the standard deviation of the mean that is found."""
    return {
        "pixels": round(statistics.fmean(row["pixels"] for row in each), 2),
        "told": {at: round(statistics.fmean(row["told"][at] for row in each), 2) for at in each[0]["told"]},
        "mean": round(statistics.fmean(row["mean"] for row in each), 2),
        "mean_std": round(statistics.stdev(row["mean"] for row in each), 2) if len(each) > 1 else 0.0,
        "spread": round(statistics.fmean(row["spread"] for row in each), 2),
    }


def main() -> int:
    """Measures, prints and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("FEDCPSC_DATA", ""), help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("lightness.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name in DATA:
        each = [measure(name, given.data, seed) for seed in given.seeds]
        rows[name] = {**summary(each), "each": each}
        print(f"{name}: {json.dumps(summary(each))}", flush=True)
    report = {"benchmark": "lightness", "seeds": given.seeds, "images": IMAGES, "rows": rows, **provenance()}
    given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
