# SPDX-License-Identifier: Apache-2.0
"""A folder in Hugging Face form that timm wrote: config.json with the network's name and how pictures were prepared."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.content import Content, content_of
from fedcpsc.teachers.huggingface_files import margin_notes
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognised import Recognised, Source, against_file
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["recognise_timm"]

_RESIZING: dict[str, Literal["squash", "crop", "pad"]] = {"squash": "squash", "border": "pad"}  # else it is cut out
_CROP_SHARE = 0.875  # of a picture, by timm's default


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
    options = _options(source, config, prepared)
    shape = _shape(prepared.get("input_size"), options)
    said, own = source.hints, _constants(prepared.get("mean"), prepared.get("std"))
    name = f"timm/{config['architecture']}"
    if said.architecture not in (None, name, config["architecture"]):
        shown = f"config.json says {name}"
        raise ManifestError(explain("architecture", said.architecture, shown, "leave it out"))
    against = against_file(said, shape, own, "config.json")
    hints = dataclasses.replace(
        said,
        architecture=name,
        image_shape=said.image_shape or shape,
        normalisation=said.normalisation or own,
    )
    found = recognise_weights(Source(path, Content(content_of(path)), hints), options)
    resize, done = _resizing(prepared, shape)
    names = config.get("label_names")
    named = tuple(map(str, names)) if isinstance(names, list) and len(names) == found.outputs else None
    return dataclasses.replace(found, class_names=named, resize=resize, notes=(*found.notes, *done, *against))


def _options(source: Source, config: dict[str, Any], prepared: dict[str, Any]) -> dict[str, Any]:
    """The arguments that timm would build the network with, beside its name, outputs and channels.

    Raises:
        ManifestError: where they cannot be read.
    """
    options = config.get("model_args") or {}
    if not isinstance(options, dict):
        shown = f"in {source.path / 'config.json'}, must be a JSON object"
        raise ManifestError(explain("model_args", options, shown, "copy the folder again"))
    pool = prepared.get("global_pool")  # which timm takes too; the one beside the architecture is for information
    return options if pool is None else {"global_pool": pool} | options


def _resizing(
    prepared: dict[str, Any], shape: tuple[int, int, int] | None
) -> tuple[Literal["squash", "crop", "pad"], list[str]]:
    """How a picture was brought to the network's size, as timm's evaluation does it, and sentences for the owner."""
    resize = _RESIZING.get(str(prepared.get("crop_mode")), "crop")
    share, said = prepared.get("crop_pct") or _CROP_SHARE, []
    if shape is not None and isinstance(share, int | float) and 0 < share <= 1:
        scaled = (math.floor(shape[1] / share), math.floor(shape[2] / share))
        said += margin_notes(scaled, shape[1:], resize)
    if isinstance(mode := prepared.get("interpolation"), str):
        said.append(f"pictures were resized by {mode} interpolation")
    if resize == "pad":
        said.append("borders of pictures were filled with the mean colour, and are white here")
    return resize, said


def _shape(sizes: Any, options: dict[str, Any]) -> tuple[int, int, int] | None:
    if isinstance(sizes, list) and sizes and isinstance(options.get("in_chans"), int):
        sizes = [options["in_chans"], *sizes[1:]]
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
