# SPDX-License-Identifier: Apache-2.0
"""What a model's file says beside its weights: the names of its classes, and what was done to pixels.

Exporters write it as metadata (ONNX, safetensors), as extra files (torch's archives) or as entries of a checkpoint. An
exported student of this project says both for certain. Of other files, entries are known by their keys (`classes`,
`names`, `class_to_idx`, ...). What the owner says otherwise is refused; what the owner does not say is taken.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fedcpsc.class_names import fault_of_class_names, folded, names_of_outputs
from fedcpsc.errors import ManifestError, explain
from fedcpsc.models.student_file import INPUT_SCALE
from fedcpsc.printable import printable
from fedcpsc.teachers.manifest import Normalisation
from fedcpsc.teachers.recognised import Recognised, Source

__all__ = ["Entries", "extra_files", "with_entries", "with_student_hints"]

Entries: TypeAlias = Mapping[str, Any]
"""Entries of a file by their keys: text, numbers, and lists and mappings of them."""

_NAMES = ("classnames", "classes", "names", "labels", "classlabels", "labelnames", "categories")
_NUMBERED = ("classtoidx", "idxtoclass", "id2label", "label2id")
_CONSTANTS = (("mean", "std"), ("image_mean", "image_std"))
_PLACEHOLDER = re.compile(r"(label|class)[ _]?\d+", re.IGNORECASE)
_DEEPEST = 3  # levels of mappings that are looked into
_LONGEST = 1 << 22  # characters of an entry that is read
_CLOSE = 2e-3  # constants are often rounded


def extra_files(path: Path) -> dict[str, Any]:
    """The entries of JSON objects in the extra files of one of torch's archives."""
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if "/extra/" in member.filename and member.file_size <= _LONGEST:
                tree = _tree(archive.read(member).decode("utf-8", errors="replace"))
                found |= tree if isinstance(tree, dict) else {}
    return found


def with_student_hints(source: Source, entries: Entries) -> Source:
    """The same with network and image shape that the weights of an exported student say they are for.

    Args:
        source: weights on the disk; what their owner says goes before.
        entries: entries of their file.
    """
    if entries.get("input") != INPUT_SCALE:
        return source
    hints, named = source.hints, entries.get("architecture")
    sizes = re.fullmatch(r"(\d+)x(\d+)x(\d+)", str(entries.get("image_shape")))
    shape = None if sizes is None else (int(sizes[1]), int(sizes[2]), int(sizes[3]))
    own = dataclasses.replace(
        hints,
        architecture=hints.architecture or (named if isinstance(named, str) else None),
        image_shape=hints.image_shape or shape,
    )
    return dataclasses.replace(source, hints=own)


def with_entries(facts: Recognised, source: Source, entries: Entries, *, weights_alone: bool = False) -> Recognised:
    """The same with the names of the classes and the normalisation that the file says.

    Args:
        facts: what is known of the model, after its trial.
        source: model on the disk, with its owner's hints.
        entries: entries of its file.
        weights_alone: whether the file holds weights, whose network does nothing to pixels by itself: constants are
            then those of its training. A whole model may apply them itself, so that they are only told.

    Raises:
        ManifestError: where the owner says another normalisation than the file, or the file gives one output two names.
    """
    entries = {str(key): _tree(value) for key, value in entries.items()}
    names, notes = _names(facts, source, entries)
    stated, certain = _normalisation(facts, entries, weights_alone=weights_alone)
    said = source.hints.normalisation
    if stated is not None and said is None and certain:
        notes.append("what was done to pixels is taken from the file")
    elif stated is not None and said is not None and not _same(stated, said):
        shown = f"the file says mean {_numbers(stated.mean)} and std {_numbers(stated.std)}"
        if certain:
            remedy = "leave --normalisation out; or, where the file is wrong, bring the model without that entry"
            raise ManifestError(explain("normalisation", f"{_numbers(said.mean)}/{_numbers(said.std)}", shown, remedy))
        notes.append(f"{shown}: it is not known whether the model applies them itself, and the owner's are used")
    return dataclasses.replace(
        facts,
        class_names=names or facts.class_names,
        normalisation=facts.normalisation or (stated if certain else None),
        notes=(*facts.notes, *notes),
    )


def _names(facts: Recognised, source: Source, entries: Entries) -> tuple[tuple[str, ...] | None, list[str]]:
    """The names of the classes in the order of the outputs, and sentences for the owner.

    Raises:
        ManifestError: where two entries order them differently.
    """
    notes: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    for key, value in _walk(entries, _DEEPEST):
        plain = re.sub(r"[^a-z0-9]", "", key.lower())
        own = names_of_outputs(_tree(value)) if plain in (*_NAMES, *_NUMBERED) else None
        if own is None or all(map(_PLACEHOLDER.fullmatch, own)):
            continue
        if facts.outputs not in (None, len(own)) or fault_of_class_names(own, len(own)):
            notes.append(f"the file's entry {printable(key, 40)!r} does not name each of the outputs: it is not used")
        else:
            found[printable(key, 40)] = own
    for key, own in found.items():
        first, other = next(iter(found.items()))
        if [folded(name) for name in own] != [folded(name) for name in other]:
            shown = f"its entries {first!r} and {key!r} give the outputs unlike names"
            remedy = "remove the one that is wrong; or bring the model without them, and name the classes"
            raise ManifestError(explain("model", str(source.path), shown, remedy))
    if not found:
        return None, notes
    key, names = next(iter(found.items()))
    if source.hints.outputs is None:
        notes.append(f"the names of the classes are taken from the file's entry {key!r}")
    return names, notes


def _normalisation(facts: Recognised, entries: Entries, *, weights_alone: bool) -> tuple[Normalisation | None, bool]:
    """The constants that the file says, and whether they are certain to be applied before the model."""
    channels = facts.channels or (facts.image_shape or (None,))[0]
    if channels is None:
        return None, False
    if entries.get("input") == INPUT_SCALE:
        inside = entries.get("normalisation") if weights_alone else None  # in a whole model they are part of it
        return _constants(inside, channels) or Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels), True
    for _, value in _walk({"": entries}, _DEEPEST + 1):
        if (found := _constants(_tree(value), channels)) is not None:
            return found, weights_alone
    return None, False


def _constants(tree: Any, channels: int) -> Normalisation | None:
    """Mean and std of a mapping that has both, one for all channels or one for each, of pixels in [0, 1]."""
    if not isinstance(tree, Mapping):
        return None
    for names in _CONSTANTS:
        mean, std = (_floats(tree.get(name), channels) for name in names)
        if mean is None or std is None or min(std) <= 0:
            continue
        scale = 255 if max(mean) > 1.5 or max(std) > 1.5 else 1
        return Normalisation(mean=tuple(v / scale for v in mean), std=tuple(v / scale for v in std))
    return None


def _floats(values: Any, channels: int) -> list[float] | None:
    values = values.tolist() if hasattr(values, "tolist") else _tree(values)
    if not isinstance(values, list | tuple) or len(values) not in (1, channels):
        return None
    if not all(isinstance(value, int | float) and abs(value) < 1e4 for value in values):  # also not where it is NaN
        return None
    return [float(value) for value in values] * (channels // len(values))


def _walk(entries: Entries, levels: int) -> Iterator[tuple[str, Any]]:
    """All entries, those of a mapping after the mapping itself."""
    for key, value in entries.items():
        yield str(key), value
        if isinstance(value, Mapping) and levels > 1:
            yield from _walk(value, levels - 1)


def _tree(value: Any) -> Any:
    """A text that is JSON, or a list or mapping as Python writes it, as what it means; all else as it is."""
    if not isinstance(value, str) or not 2 <= len(value) <= _LONGEST or value.strip()[:1] not in ("[", "{", "("):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value


def _same(one: Normalisation, other: Normalisation) -> bool:
    return np.shape(one.mean) == np.shape(other.mean) and np.allclose(
        [one.mean, one.std], [other.mean, other.std], rtol=0, atol=_CLOSE
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in values)
