# SPDX-License-Identifier: Apache-2.0
"""Draws docs/architecture.svg: the packages by layer, an arrow for each import. `python -m website.architecture`.

The layout is Sugiyama's: an arrow that passes layers gets a place in each of them, places are ordered by the mean of
their neighbours, and columns are pulled towards them. Nothing is drawn by chance: the same code gives the same picture.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from website.imports import ROOT, Packages, read_packages

__all__ = ["PICTURE", "draw", "main"]

PICTURE = ROOT / "docs" / "architecture.svg"

WIDTH, MARGIN = 900, 16  # pixels
BOX, HEIGHT, GAP, BETWEEN, LANE = 134, 62, 12, 30, 14
_SIDES = {
    "server": ("aggregation", "answer_set", "distillation", "losses", "server"),
    "silo": ("clients", "gatekeeper", "ledger", "privacy", "silos", "teachers", "training"),
    "user": ("audit", "bench", "cli", "commands", "export", "launch", "report", "simulated", "sweep", "white_box"),
}
_LEGEND = {"server": "the server's side", "silo": "the silo's side", "user": "for the user", "both": "used by both"}
_TITLE = "The packages of fedcpsc by layer; an arrow leads from a package to one that it imports"
_STYLE = """
svg { --paper: #ffffff; --ink: #1f2933; --soft: #52606d; --line: #7b8794; --rule: #e4e7eb;
  --server: #d3f2ee; --server-edge: #0f8a7e; --silo: #ffe9c7; --silo-edge: #b26a00;
  --user: #e7e3fb; --user-edge: #6250c4; --both: #e9eef3; --both-edge: #627d98; }
@media (prefers-color-scheme: dark) { svg { --paper: #1e2129; --ink: #eef2f6; --soft: #b8c4cf; --line: #8fa1b3;
  --rule: #323844; --server: #10403c; --server-edge: #3fc7b8; --silo: #4a3310; --silo-edge: #f0b354;
  --user: #332c5c; --user-edge: #a79bf2; --both: #2c3644; --both-edge: #8aa4bf; } }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.name { font-size: 14px; font-weight: 600; } .caption { font-size: 10.5px; fill: var(--soft); }
.legend { font-size: 12px; fill: var(--soft); } .arrow { fill: none; stroke: var(--line); stroke-width: 1.4; }
.head { fill: var(--line); } .rule { stroke: var(--rule); } .paper { fill: var(--paper); }
""".strip()


@dataclass
class _Place:
    """A box, or the lane of an arrow that passes through a layer.

    Attributes:
        name: name of the package, or the arrow's two ends.
        row: number of the layer, from the top.
        width: width of the place, in pixels.
        up, down: places that it is joined to above and below.
        x: middle of the place, in pixels.
    """

    name: str
    row: int
    width: int
    up: list[_Place] = field(default_factory=list)
    down: list[_Place] = field(default_factory=list)
    x: float = 0.0


def draw(packages: Packages) -> str:
    """The picture as SVG text, 900 pixels wide, for light and dark surroundings."""
    rows, arrows = _places(packages)
    for _ in range(12):
        _order(rows)
    for _ in range(40):
        _pull(rows)
    top = MARGIN + 34
    heights = [top + number * (HEIGHT + BETWEEN) for number in range(len(rows))]
    base = heights[-1] + HEIGHT + BETWEEN
    height = base + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title">',
        f'<title id="title">{_TITLE}</title>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker></defs>',
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="10"/>',
        *_legend(),
        *(_arrow(chain, heights) for chain in arrows),
        *(
            _box(place.x - BOX / 2, heights[place.row], BOX, place.name, packages.captions[place.name])
            for row in rows
            for place in row
            if place.name in packages.captions
        ),
        *_base(base, packages.base),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _places(packages: Packages) -> tuple[list[list[_Place]], list[list[_Place]]]:
    rows = [[_Place(name, number, BOX) for name in layer] for number, layer in enumerate(packages.layers)]
    boxes = {place.name: place for row in rows for place in row}
    arrows = []
    for name, targets in packages.imports.items():
        for target in targets:
            chain = [boxes[name]]
            for number in range(boxes[name].row + 1, boxes[target].row):
                rows[number].append(_Place(f"{name}>{target}", number, LANE))
                chain.append(rows[number][-1])
            chain.append(boxes[target])
            for upper, lower in itertools.pairwise(chain):
                upper.down.append(lower)
                lower.up.append(upper)
            arrows.append(chain)
    for row in rows:
        _spread(row)
    return rows, arrows


def _gap(row: Sequence[_Place]) -> float:
    """Pixels between a row's places: fewer where the row would not fit into the picture otherwise."""
    left = WIDTH - 2 * MARGIN - sum(place.width for place in row)
    return min(float(GAP), left / max(1, len(row) - 1))


def _spread(row: Sequence[_Place]) -> None:
    """Puts a row's places side by side, around the middle."""
    gap = _gap(row)
    x = WIDTH / 2 - (sum(place.width for place in row) + gap * (len(row) - 1)) / 2
    for place in row:
        place.x = x + place.width / 2
        x += place.width + gap


def _order(rows: Sequence[list[_Place]]) -> None:
    for sweep, side in ((rows, "up"), (rows[::-1], "down")):
        for row in sweep:
            wanted = {id(place): _mean(getattr(place, side), place.x) for place in row}
            row.sort(key=lambda place: (wanted[id(place)], place.name))
            _spread(row)


def _pull(rows: Sequence[Sequence[_Place]]) -> None:
    """Moves each place towards its neighbours and the middle, as far as those beside it and the edges let it."""
    for row in rows:
        for place in row:
            place.x += 0.4 * (_mean([*place.up, *place.down], place.x) - place.x) + 0.2 * (WIDTH / 2 - place.x)
        edge, gap = float(MARGIN), _gap(row)
        for place in row:
            place.x = max(place.x, edge + place.width / 2)
            edge = place.x + place.width / 2 + gap
        edge = float(WIDTH - MARGIN)
        for place in reversed(row):
            place.x = min(place.x, edge - place.width / 2)
            edge = place.x - place.width / 2 - gap


def _mean(places: Sequence[_Place], otherwise: float) -> float:
    return sum(place.x for place in places) / len(places) if places else otherwise


def _arrow(chain: Sequence[_Place], heights: Sequence[int]) -> str:
    """From the lower edge of the first box to the upper edge of the last, straight down within the layers between."""
    begin, end = chain[0], chain[-1]
    x, y = begin.x + _beside(begin, begin.down, chain[1]), float(heights[begin.row] + HEIGHT)
    path = [f"M{x:.1f} {y:.1f}"]
    for place in chain[1:]:
        last = place is end
        to_x = place.x + (_beside(end, end.up, chain[-2]) if last else 0.0)
        to_y = heights[place.row] - (2.0 if last else 0.0)
        middle = (y + to_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
        if not last:
            y = float(heights[place.row] + HEIGHT)
            path.append(f"V{y:.1f}")
    return f'<path class="arrow" marker-end="url(#head)" d="{" ".join(path)}"/>'


def _beside(box: _Place, joined: Sequence[_Place], one: _Place) -> float:
    """Where along the edge of a box an arrow stands, from its middle: in the order of the other ends."""
    order = sorted(joined, key=lambda place: (place.x, place.name))
    step = min(22.0, (box.width - 30) / max(1, len(order) - 1))
    return (next(i for i, place in enumerate(order) if place is one) - (len(order) - 1) / 2) * step


def _side(name: str) -> str:
    return next((side for side, names in _SIDES.items() if name in names), "both")


def _box(x: float, y: float, width: float, name: str, caption: str) -> str:
    side, middle = _side(name), x + width / 2
    lines = textwrap.wrap(caption, 21, break_on_hyphens=False)[:3]
    first = y + (HEIGHT - 13 * len(lines)) / 2 + 5
    text = [_text("name", middle, first, name)]
    text += [_text("caption", middle, first + 14 + 12 * number, line) for number, line in enumerate(lines)]
    frame = f'<rect x="{x:.1f}" y="{y}" width="{width}" height="{HEIGHT}" rx="7" {_fill(side)}/>'
    return "\n".join([frame, *text])


def _text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(words)}</text>'


def _fill(side: str) -> str:
    return f'style="fill: var(--{side}); stroke: var(--{side}-edge)"'


def _legend() -> list[str]:
    parts = []
    x = float(MARGIN)
    for side, words in _LEGEND.items():
        parts.append(f'<rect x="{x:.1f}" y="{MARGIN}" width="14" height="14" rx="3" {_fill(side)}/>')
        parts.append(f'<text class="legend" x="{x + 20:.1f}" y="{MARGIN + 12}">{words}</text>')
        x += 44 + 6.2 * len(words)
    return parts


def _base(y: int, names: Sequence[str]) -> list[str]:
    width, middle = WIDTH - 2 * MARGIN, WIDTH / 2
    return [
        f'<rect x="{MARGIN}" y="{y}" width="{width}" height="{HEIGHT}" rx="7" {_fill("both")}/>',
        _text("name", middle, y + 27, "the ground that all stand on"),
        _text("caption", middle, y + 45, "  ·  ".join(names)),
    ]


def main(path: Path = PICTURE) -> None:
    """Writes the picture."""
    path.write_text(draw(read_packages()), encoding="utf-8")


if __name__ == "__main__":
    main()
