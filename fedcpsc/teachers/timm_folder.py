# SPDX-License-Identifier: Apache-2.0
"""A folder in Hugging Face form that timm wrote: config.json with the network's name and how pictures were prepared."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.content import Content, content_of
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["recognise_timm"]


def recognise_timm(source: Source, config: dict[str, Any]) -> Recognised:
    """What such a folder says of its model.

    Args:
        source: folder of the model, with its owner's hints.
        config: content of its config.json.

    Raises:
        ManifestError: where no teacher can be made of it.
    """
    whole, pickled = source.path / "model.safetensors", source.path / "pytorch_model.bin"
    path = whole if whole.exists() else pickled
    if not path.exists():
        shown = "has neither model.safetensors nor pytorch_model.bin"
        raise ManifestError(explain("model", str(source.path), shown, "copy the whole folder"))
    prepared = config.get("pretrained_cfg")
    prepared = prepared if isinstance(prepared, dict) else {}
    hints = dataclasses.replace(
        source.hints,
        architecture=f"timm/{config['architecture']}",
        image_shape=source.hints.image_shape or _shape(prepared.get("input_size")),
        normalisation=source.hints.normalisation or _constants(prepared.get("mean"), prepared.get("std")),
    )
    found = recognise_weights(Source(path, Content(content_of(path)), hints))
    names = config.get("label_names")
    named = tuple(map(str, names)) if isinstance(names, list) and len(names) == found.outputs else None
    return dataclasses.replace(found, class_names=named, resize="crop")


def _shape(sizes: Any) -> tuple[int, int, int] | None:
    if isinstance(sizes, list) and len(sizes) == 3 and all(isinstance(size, int) and size > 0 for size in sizes):
        return sizes[0], sizes[1], sizes[2]
    return None


def _constants(mean: Any, std: Any) -> Normalisation | None:
    if not isinstance(mean, list) or not isinstance(std, list):
        return None
    try:
        return Normalisation(mean=tuple(mean), std=tuple(std))
    except ValueError:
        return None
