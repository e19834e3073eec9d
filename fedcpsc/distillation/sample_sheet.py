# SPDX-License-Identifier: Apache-2.0
"""samples.png: the query images by class, in as many columns as the classes ask for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from fedcpsc.printable import printable

__all__ = ["save_samples"]

_DPI = 100
_TILE, _GAP = 64, 4  # pixels of an image and between two
_LABEL, _BELOW, _ASIDE = 20, 12, 28  # pixels of a class's name, below its images, and between two columns
_MARGIN, _TITLE = 16, 40  # pixels
_MOST_CLASSES = 200
_GROUND = (0xEC, 0xEF, 0xF2)  # on which white images are seen as well as black ones
_LAYOUTS = ((12, 1, 12), (40, 2, 6), (_MOST_CLASSES, 4, 4))  # classes at most: columns, images of each class
_LETTER = 6.2  # pixels of a letter


def save_samples(
    path: Path, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.float32], names: Sequence[str] | None = None
) -> None:
    """Query images by the class the silos saw in them, the surest first; of many classes several side by side.

    Args:
        images: images to draw, uint8 [N, C, H, W], C being 1 or 3.
        targets: aggregated answers [N, K]. Of more than 200 classes the most frequent are drawn.
        names: names of the classes; None shows their numbers.
    """
    classes = targets.shape[1]
    seen = targets.argmax(1)
    often = np.bincount(seen, minlength=classes)
    shown = np.sort(np.argsort(-often, kind="stable")[:_MOST_CLASSES])
    columns, each = next((columns, each) for most, columns, each in _LAYOUTS if len(shown) <= most)
    lines = -(-len(shown) // columns)
    wide = each * (_TILE + _GAP) - _GAP
    high = _LABEL + _TILE + _BELOW
    width = 2 * _MARGIN + columns * (wide + _ASIDE) - _ASIDE
    height = _TITLE + lines * high + _MARGIN
    canvas: npt.NDArray[np.uint8] = np.full((height, width, 3), _GROUND, np.uint8)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for place, k in enumerate(shown):
        left, top = _MARGIN + (place // lines) * (wide + _ASIDE), _TITLE + (place % lines) * high
        members = np.flatnonzero(seen == k)
        clearest = members[np.argsort(-targets[members, k], kind="stable")][:each]
        for i, row in enumerate(clearest):
            tile = _tile(images[row])
            x, y = left + i * (_TILE + _GAP), top + _LABEL
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        count = f"{often[k]:,}"
        name = printable(names[k] if names else str(k), max(4, int(wide / _LETTER) - len(count) - 4))
        at = (left / width, 1 - (top + _LABEL - 6) / height)
        figure.text(*at, f"{name}  ({count})", fontsize=8, parse_math=False)  # a name may hold a dollar sign
    of = "" if len(shown) == classes else f", the {len(shown)} most frequent of {classes:,} classes"
    title = f"Query images by the class the silos saw in them (how many){of}"
    figure.text(_MARGIN / width, 1 - 24 / height, title, fontsize=10)
    figure.figimage(canvas, 0, 0, zorder=-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in any script
        figure.savefig(path, dpi=_DPI)


def _tile(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [C, H, W] -> [h, w, 3] of at most 64 x 64: small ones enlarged by whole pixels."""
    longest = max(image.shape[1:])
    pixels = image.transpose(1, 2, 0)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    if longest <= _TILE:
        factor = _TILE // longest
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (max(1, round(side * _TILE / longest)) for side in image.shape[1:])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
