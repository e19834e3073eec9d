# SPDX-License-Identifier: Apache-2.0
"""What every kind of prior looks like, in a light domain of colours and in a dark one of greys.

python -m benchmarks.prior_kinds --out benchmarks/results/prior_kinds.png
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from fedcpsc.choices import PRIORS
from fedcpsc.data.images import to_uint8
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones

DOMAINS = (("colours, mean -0.05", (3, 32, 32), -0.05), ("greys, mean -0.74 (as MNIST's)", (1, 28, 28), -0.74))
_COLUMNS, _ROWS, _GAP = 12, 2, 2


def sheet(kind: str, shape: tuple[int, int, int], mean: float) -> npt.NDArray[np.uint8]:
    """Images of one kind side by side, uint8 [h, w, 3], on white."""
    pixels = sample_prior({kind: 1.0}, _COLUMNS * _ROWS, shape, torch.Generator().manual_seed(1), Tones(mean))
    images = to_uint8(pixels).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    framed = np.pad(images, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    _, height, width, _ = framed.shape
    grid = framed.reshape(_ROWS, _COLUMNS, height, width, 3).transpose(0, 2, 1, 3, 4)
    drawn: npt.NDArray[np.uint8] = grid.reshape(_ROWS * height, _COLUMNS * width, 3)
    return drawn


def draw() -> Figure:
    """A row for each kind, a column for each domain."""
    figure = Figure(figsize=(12, 1.1 * len(PRIORS.built_in()) + 0.3), layout="constrained")
    axes: Any = figure.subplots(len(PRIORS.built_in()), len(DOMAINS))
    for row, kind in enumerate(PRIORS.built_in()):
        for column, (title, shape, mean) in enumerate(DOMAINS):
            axis = axes[row, column]
            axis.imshow(sheet(kind, shape, mean), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(title, fontsize=10)
        axes[row, 0].set_ylabel(kind, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def main() -> int:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="prior_kinds.png")
    draw().savefig(parser.parse_args().out, dpi=80)
    return 0


if __name__ == "__main__":
    sys.exit(main())
