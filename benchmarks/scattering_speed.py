# SPDX-License-Identifier: Apache-2.0
"""Scattering coefficients of a batch on one core: in pieces that stay in the cache, against all images at once.

    python -m benchmarks.scattering_speed --out benchmarks/results/scattering_speed.json

Both are timed by turns in CPU seconds, so that other work on the machine weighs on both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.record import provenance
from fedcpsc.models.scattering import ScatteringClassifier

SHAPES = ((1, 28, 28), (3, 32, 32))
IMAGES, TURNS = 256, 7


def _seconds(work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    begun = time.process_time()
    work(images)
    return time.process_time() - begun


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        network = ScatteringClassifier(10, shape)
        images = torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
        with torch.inference_mode():
            pairs = [
                (_seconds(network.coefficients_at_once, images), _seconds(network.coefficients, images))
                for _ in range(TURNS)
            ]
        ratios = [at_once / pieces for at_once, pieces in pairs]
        rows.append(
            {
                "image": list(shape),
                "ratio": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "most": round(max(ratios), 2),
                "images_a_second": round(IMAGES / statistics.median(pieces for _, pieces in pairs)),
            }
        )
        print(rows[-1])
    out.write_text(json.dumps({"rows": rows, "images": IMAGES, **provenance()}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
