# SPDX-License-Identifier: Apache-2.0
"""Query images by the class the silos saw in them, from the first rounds to the last: small PNGs inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedcpsc.report.blocks import Cell, Table, class_label
from fedcpsc.runs.bank_view import BankView

__all__ = ["data_uri", "query_table"]

_SPANS = 6  # columns: the rounds, cut into so many
_EACH = 4  # images of one class and one span of rounds
_CLASSES = 20  # rows at most: of more classes, those seen most often
_LARGEST = 48  # pixels; larger images are shown smaller


def query_table(bank: BankView) -> Table | None:
    """Rows: classes; columns: rounds; in each cell the images silos are most confident of. None without answers."""
    answered = [batch for batch in bank.batches if batch.heard]
    if not answered:
        return None
    spans = [span for span in np.array_split(np.unique([batch.round for batch in answered]), _SPANS) if len(span)]
    rows_of = [bank.answered_rows(range(span[0], span[-1] + 1)) for span in spans]
    seen_of = [np.asarray(bank.targets[rows].argmax(1)) for rows in rows_of]
    often = np.bincount(np.concatenate(seen_of), minlength=bank.classes)
    shown = np.sort(np.argsort(-often, kind="stable")[:_CLASSES])
    cells = []
    for k in shown:
        label = class_label(bank.label_sets.names, int(k))
        row = [Cell(label)]
        for span, rows, seen in zip(spans, rows_of, seen_of, strict=True):
            members = rows[seen == k]
            clearest = members[np.argsort(-bank.targets[members, k], kind="stable")][:_EACH]
            row.append(_cell(bank, label, _rounds(span), clearest, len(members)))
        cells.append(tuple(row))
    of = "" if bank.classes <= _CLASSES else f", the {_CLASSES} most frequent of {bank.classes} classes"
    caption = f"Query images by the class the silos saw in them (the {_EACH} most confident; how many in all){of}"
    return Table(caption, ("class", *(_rounds(span) for span in spans)), tuple(cells), dense=True)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _rounds(span: npt.NDArray[np.int64]) -> str:
    first, last = int(span[0]) + 1, int(span[-1]) + 1  # people count from 1
    return f"round {first}" if first == last else f"rounds {first}-{last}"


def _cell(bank: BankView, label: str, rounds: str, rows: npt.NDArray[np.int64], count: int) -> Cell:
    if len(rows) == 0:
        return Cell("none")
    alt = f"{len(rows)} of {count} query images of {label}, {rounds}"
    return Cell(f"{count}", picture=data_uri(_png(bank.images[rows]), "image/png"), alt=alt)


def _png(images: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [n, C, H, W] -> one PNG of two columns, a transparent line between."""
    size = min(1.0, _LARGEST / max(images.shape[2:]))
    width, height = max(1, round(images.shape[3] * size)), max(1, round(images.shape[2] * size))
    sheet = Image.new("RGBA", (2 * width + 1, (height + 1) * -(-len(images) // 2) - 1), (0, 0, 0, 0))
    for i, image in enumerate(images):
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        tile = Image.fromarray(pixels)
        if size < 1:
            tile = tile.resize((width, height), Image.Resampling.BOX)
        sheet.paste(tile.convert("RGBA"), ((i % 2) * (width + 1), (i // 2) * (height + 1)))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
