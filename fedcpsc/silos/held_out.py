# SPDX-License-Identifier: Apache-2.0
"""Writes what was set aside of a silo's images into its folder, where its gatekeeper judges students on it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fedcpsc.data.images import ImageSet
from fedcpsc.errors import DataError, explain
from fedcpsc.files import durable, private_folder
from fedcpsc.gatekeeper.held_out import HELD_OUT_FOLDER, PERSON_COLUMN
from fedcpsc.silos.folder import explained_silo_writes

__all__ = ["check_held_out", "write_held_out"]

_MODES = {1: "L", 3: "RGB"}


def check_held_out(share: float, image_shape: tuple[int, int, int], held_out: ImageSet | None, silo: str) -> None:
    """Does nothing where a silo's images can be set aside as configured.

    Args:
        share: value of `silos.held_out`.
        image_shape: (C, H, W) of the silo's images.
        held_out: images that were set aside; None where none were.
        silo: name of the silo.

    Raises:
        DataError: they have other channels than pictures have, or none were set aside.
    """
    if share and image_shape[0] not in _MODES:
        constraint = f"images of {image_shape[0]} channels cannot be kept as pictures"
        raise DataError(explain("silos.held_out", share, constraint, "set it to 0"))
    if share and held_out is None:
        constraint = f"sets no image of {silo} aside"
        raise DataError(explain("silos.held_out", share, constraint, "raise it, or give the silo more images"))


def write_held_out(folder: Path, held_out: ImageSet) -> None:
    """Writes them as `held_out/train.parquet` in the silo's folder, for its owner alone, whole or not at all.

    Args:
        folder: the silo's folder.
        held_out: images that were set aside, of 1 or 3 channels.

    Raises:
        SiloError: where they cannot be written.
    """
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    names = held_out.class_names
    label = {"num_classes": held_out.classes} if names is None else {"names": list(names)}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", **label}}
    columns = {
        "image": pa.array([{"bytes": _png(image), "path": None} for image in held_out.images]),
        "label": pa.array(held_out.labels.tolist(), pa.int64()),
    }
    if held_out.persons is not None:
        columns[PERSON_COLUMN] = pa.array(held_out.persons.tolist(), pa.string())
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with explained_silo_writes(folder):
        place = folder / HELD_OUT_FOLDER
        private_folder(place)
        with durable(place / "train.parquet") as file:
            pq.write_table(table, file)
        private_folder(place)  # the new file, too


def _png(image: np.ndarray) -> bytes:
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()
