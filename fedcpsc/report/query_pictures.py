# SPDX-License-Identifier: Apache-2.0
"""Query images by the class the silos saw in them: the clearest of each class large, and from first rounds to last."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedcpsc.report.blocks import Block, Card, Cell, Folded, Gallery, Table, class_label
from fedcpsc.runs.bank_view import BankView

__all__ = ["data_uri", "query_blocks"]

_SPANS = 6  # columns: the rounds, cut into so many
_EACH = 4  # images of one class and one span of rounds
_CLASSES = 20  # rows at most: of more classes, those seen most often
_CARDS, _MOST_CARDS = 25, 200  # classes shown at once, and behind a fold
_CLEAREST = 6  # images of a card
_SEEN_FROM = 64  # pixels: smaller images are enlarged to about so many, larger ones made smaller
_GAP = 4  # pixels between images


def query_blocks(bank: BankView) -> Iterator[Block]:
    """The clearest images of each class, and behind a fold those of each span of rounds. Nothing without answers."""
    answered = [batch for batch in bank.batches if batch.heard]
    if not answered:
        return
    rounds = np.unique([batch.round for batch in answered])
    rows = bank.answered_rows(range(rounds[0], rounds[-1] + 1))
    seen = np.asarray(bank.targets[rows].argmax(1))
    often = np.bincount(seen, minlength=bank.classes)
    order = np.argsort(-often, kind="stable")
    first = np.sort(order[: _CARDS if bank.classes > _CARDS else bank.classes])
    title = "The query images that the silos are most confident of, by the class they saw in them"
    of = "" if len(first) == bank.classes else f", the {len(first)} most frequent of {bank.classes} classes"
    yield Gallery(title + of, tuple(_card(bank, int(k), rows[seen == k]) for k in first))
    others = np.sort(order[len(first) : _MOST_CARDS])
    if len(others):
        more = f"{len(others)} more classes" + (f" of {bank.classes}" if bank.classes > _MOST_CARDS else "")
        cards = tuple(_card(bank, int(k), rows[seen == k]) for k in others)
        yield Folded(more, (Gallery(f"The same of {more}", cards),))
    yield Folded("The query images from the first rounds to the last", (_by_round(bank, rounds, order),))


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _card(bank: BankView, k: int, members: npt.NDArray[np.int64]) -> Card:
    label = class_label(bank.label_sets.names, k)
    clearest = _clearest(bank, k, members, _CLEAREST)
    images = "1 image" if len(members) == 1 else f"{len(members):,} images"
    alt = f"{len(clearest)} of {len(members)} query images of {label}" if len(members) else f"no query image of {label}"
    content, size = _sheet(bank.images[clearest], columns=3, places=_CLEAREST, shape=bank.image_shape)
    return Card(label, data_uri(content, "image/png"), alt, images, size)


def _by_round(bank: BankView, rounds: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> Table:
    """Rows: classes; columns: rounds; in each cell the images silos are most confident of."""
    spans = [span for span in np.array_split(rounds, _SPANS) if len(span)]
    rows_of = [bank.answered_rows(range(span[0], span[-1] + 1)) for span in spans]
    seen_of = [np.asarray(bank.targets[rows].argmax(1)) for rows in rows_of]
    cells = []
    for k in np.sort(order[:_CLASSES]):
        label = class_label(bank.label_sets.names, int(k))
        row = [Cell(label)]
        for span, rows, seen in zip(spans, rows_of, seen_of, strict=True):
            members = rows[seen == k]
            clearest = _clearest(bank, int(k), members, _EACH)
            row.append(_cell(bank, label, _rounds(span), clearest, len(members)))
        cells.append(tuple(row))
    of = "" if bank.classes <= _CLASSES else f", the {_CLASSES} most frequent of {bank.classes} classes"
    caption = f"Query images by the class the silos saw in them (the {_EACH} most confident; how many in all){of}"
    return Table(caption, ("class", *(_rounds(span) for span in spans)), tuple(cells), dense=True)


def _clearest(bank: BankView, k: int, members: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return members[np.argsort(-bank.targets[members, k], kind="stable")][:count]


def _rounds(span: npt.NDArray[np.int64]) -> str:
    first, last = int(span[0]) + 1, int(span[-1]) + 1  # people count from 1
    return f"round {first}" if first == last else f"rounds {first}-{last}"


def _cell(bank: BankView, label: str, rounds: str, rows: npt.NDArray[np.int64], count: int) -> Cell:
    if len(rows) == 0:
        return Cell("none", 0.0)
    alt = f"{len(rows)} of {count} query images of {label}, {rounds}"
    content, size = _sheet(bank.images[rows], columns=2, places=len(rows), shape=bank.image_shape)
    return Cell(f"{count}", picture=data_uri(content, "image/png"), alt=alt, size=size)


def _sheet(
    images: npt.NDArray[np.uint8], columns: int, places: int, shape: tuple[int, int, int]
) -> tuple[bytes, tuple[int, int]]:
    """uint8 [n, C, H, W] -> one PNG of so many columns and places, transparent between; and its width and height.

    A pixel of a small image becomes a square of whole pixels: shown smaller, it is still sharp.
    """
    channels, high, wide = shape
    longest = max(high, wide)
    size = float(max(1, _SEEN_FROM // longest)) if longest <= _SEEN_FROM else _SEEN_FROM / longest
    width, height = max(1, round(wide * size)), max(1, round(high * size))
    lines = -(-places // columns)
    whole = (columns * (width + _GAP) - _GAP, lines * (height + _GAP) - _GAP)
    sheet = Image.new("LA" if channels == 1 else "RGBA", whole, 0)
    way = Image.Resampling.NEAREST if size >= 1 else Image.Resampling.BOX
    for i, image in enumerate(images):
        pixels = image.transpose(1, 2, 0) if channels == 3 else image[0]
        tile = Image.fromarray(pixels).resize((width, height), way)
        sheet.paste(tile.convert(sheet.mode), ((i % columns) * (width + _GAP), (i // columns) * (height + _GAP)))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue(), whole
