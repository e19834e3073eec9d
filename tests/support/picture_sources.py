# SPDX-License-Identifier: Apache-2.0
"""Small sources of each form, written to a temporary folder."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int, size: int = 6, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_parquet(
    path: Path, images: list[bytes | None], labels: list, names: list[str] | None = None, **columns: str
) -> None:
    """A parquet file in the hub's image form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": data, "path": None} for data in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    label_name = columns.get("label", "label")
    table = pa.table({columns.get("image", "image"): image, label_name: pa.array(labels)})
    if names is not None:
        features = {"info": {"features": {label_name: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)


def write_folder(root: Path, images: np.ndarray, labels: list[str], classes: list[str]) -> None:
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        (root / label / f"{i:03}.png").write_bytes(png(pixels))
