# SPDX-License-Identifier: Apache-2.0
"""Shares of many rows and columns as one picture: a confusion of so many classes that no table holds it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedcpsc.report.plane import frame, shown, width_of
from fedcpsc.report.query_pictures import data_uri

__all__ = ["heat_map"]

_NAMED = 10  # rows and columns that are named, about
_LONGEST = 14  # characters of a name
_TINT = (0x3D, 0x8F, 0xC4)  # the page's --tint, which suits light and dark
_FAINTEST = 60  # of 255: opacity of the smallest share that is not 0, else single images would not be seen


def heat_map(name: str, title: str, shares: npt.NDArray[np.float64], names: Sequence[str], axes: str) -> str:
    """A square for each row and column, the stronger the larger its share.

    Args:
        name: name of the drawing, unique on the page.
        title: title for screen readers.
        shares: shares in [0, 1], [K, K].
        names: names of rows and columns, [K].
        axes: what rows and columns are, in words.
    """
    size = len(names)
    opacity = np.where(shares > 0, _FAINTEST + (255 - _FAINTEST) * np.sqrt(np.clip(shares, 0, 1)), 0)
    pixels: npt.NDArray[np.uint8] = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = _TINT, opacity.round()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    source = data_uri(out.getvalue(), "image/png")
    parts = [f'<image href="{source}" width="100%" height="100%" preserveAspectRatio="none"/>']
    parts.append('<rect class="axis" width="100%" height="100%"/>')
    named = range(0, size, max(1, -(-size // _NAMED)))
    for k in named:
        at, words = f"{100 * (k + 0.5) / size:.2f}%", shown(names[k], _LONGEST)
        parts.append(f'<text class="quiet" x="-8" y="{at}" dy="4.5" text-anchor="end">{words}</text>')
        turned = f'<text class="quiet" transform="rotate(-45)" text-anchor="end">{words}</text>'
        parts.append(f'<svg x="{at}" y="100%" overflow="visible"><g transform="translate(6 14)">{turned}</g></svg>')
    longest = max(width_of(names[k][:_LONGEST]) for k in named)
    parts.append(f'<text class="quiet" x="{-14 - longest:.0f}" y="-12">{shown(axes, len(axes))}</text>')
    return frame(name, title, None, None, "".join(parts), height=420, square_from=14 + longest)
