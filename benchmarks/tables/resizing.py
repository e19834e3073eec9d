# SPDX-License-Identifier: Apache-2.0
"""Ways of making pictures square, compared by the teachers that are trained on them."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.tables.markdown import read, spread, table

__all__ = ["resizing"]

_FRAMES = {
    "framed": "subject anywhere in a frame of 2:3 or 3:2",
    "cut": "subject fills a picture of 2:3 or 3:2",
    "landscape": "subject anywhere in a frame of 3:2",
    "panorama": "subject anywhere in a frame of 3:1 or 1:3",
}
_SOURCES = {"sign_digits": "hands", "blood_cells": "blood cells"}


def resizing() -> list[str]:
    """Accuracy of a teacher by way of resizing, in percent."""
    cells: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in (read("resize.json") or {"rows": []})["rows"]:
        cells[row["source"], row["frame"]][row["resize"]] = spread(100 * row["mean"], 100 * row["std"])
    return table(
        "pictures | how they are framed | squash | crop | pad",
        (
            (_SOURCES[source], _FRAMES[frame], *(ways[way] for way in ("squash", "crop", "pad")))
            for (source, frame), ways in cells.items()
        ),
    )
