# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a Hugging Face folder: which model, which classes, how its pictures were prepared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedcpsc.class_names import moved_name, names_of_outputs
from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.manifest import Normalisation

__all__ = ["PREPARATION", "Preparation", "class_names", "margin_notes", "preparation", "read_json"]

PREPARATION = "preprocessor_config.json"
_LONGEST = 16 << 20  # bytes of such a file
_KNOWN_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_WHOLE_EDGE = 384  # from which ConvNeXT's processor takes the whole picture
_SQUARE = ("DeiT", "Beit", "EfficientNet", "EfficientFormer")  # whose processors take a size of one number as both
_RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}


@dataclass(frozen=True)
class Preparation:
    """How pictures were prepared for a model; None where the folder does not say.

    Attributes:
        sides: height and width.
        normalisation: constants that were applied.
        resize: way in which a picture was brought to these sides.
        notes: sentences for the owner.
    """

    sides: tuple[int, int] | None = None
    normalisation: Normalisation | None = None
    resize: Literal["squash", "crop"] | None = None
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ManifestError: where the file cannot be read or is none.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise ManifestError(explain("model", str(path), "is too large for such a file", "copy it again"))
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "check that this user may read it"
        raise ManifestError(explain("model", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(explain("model", str(path), f"is not JSON ({error})", "copy it again")) from error
    if not isinstance(tree, dict):
        raise ManifestError(explain("model", str(path), "must be a JSON object", "copy it again"))
    return tree


def class_names(config: dict[str, Any], path: Path) -> tuple[tuple[str, ...] | None, int]:
    """Names of the classes in the order of the outputs, None where they are placeholders; and their number.

    Args:
        config: content of config.json.
        path: path of the folder, for messages.

    Raises:
        ManifestError: where the number of classes cannot be read, or names are missing.
    """
    labels, number = config.get("id2label"), config.get("num_labels")
    if labels is None and isinstance(number, int):
        return None, number
    if labels is None:
        return None, 2  # what transformers takes where a configuration names none
    try:
        ordered = [labels[str(index)] for index in range(len(labels))]
    except (KeyError, TypeError) as error:
        shown = "must name the classes 0, 1, ... without a gap"
        raise ManifestError(explain("id2label", labels, f"in {path / 'config.json'}, {shown}", "fix it")) from error
    names = tuple(str(name).strip() for name in ordered)
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return None, len(names)
    back = names_of_outputs(config.get("label2id"))
    if back is not None and (moved := moved_name(names, back)) is not None:
        place, other = moved
        shown = f"in {path / 'config.json'}, is output {place} by id2label and output {other} by label2id"
        raise ManifestError(explain("label", names[place], shown, "fix the one that is wrong"))
    return names, len(names)


def preparation(folder: Path, channels: int) -> Preparation:
    """How pictures were prepared, by `preprocessor_config.json`.

    Args:
        folder: folder of the model.
        channels: number of channels of an image.

    Raises:
        ManifestError: where it prepares them in a way that cannot be followed.
    """
    path = folder / PREPARATION
    if not path.exists():
        return Preparation(notes=("the folder has no preprocessor_config.json: say how pictures were prepared",))
    tree = read_json(path)
    tree = tree.get("image_processor", tree) if isinstance(tree.get("image_processor"), dict) else tree
    strange = [
        key for key, value in tree.items() if key.startswith("do_") and value is True and key not in _KNOWN_STEPS
    ]
    strange += [key for key in ("rescale_offset", "include_top") if tree.get(key) is True]
    if strange:
        shown = f"prepares pictures by {', '.join(strange)}, which is not done here"
        remedy = "export the model to ONNX with that step inside"
        raise ManifestError(explain("model", str(path), shown, remedy))
    sides, resize, notes = _sides(tree)
    if (resampling := _RESAMPLING.get(tree.get("resample", -1))) is not None:
        notes.append(f"pictures were resized by {resampling} interpolation")
    try:
        constants = _normalisation(tree, channels)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        shown = f"has constants that cannot be used ({str(error).partition(chr(10))[0][:100]})"
        raise ManifestError(explain("model", str(path), shown, f"give {channels} numbers, std > 0")) from error
    if constants is None:
        notes.append("preprocessor_config.json does not say mean and std")
    return Preparation(sides, constants, resize, tuple(notes))


def _sides(tree: dict[str, Any]) -> tuple[tuple[int, int] | None, Literal["squash", "crop"] | None, list[str]]:
    """Height and width, how a picture was brought to them, and sentences for the owner."""
    if tree.get("do_center_crop") is True:
        return _cut_out(tree)
    if tree.get("do_resize") is False:
        return None, None, ["pictures were not resized: say their height and width"]
    size = tree.get("size")
    edge = _edge(size)
    if edge is not None and tree.get("crop_pct") is not None:  # ConvNeXT: below 384 pixels it cuts out the middle
        if edge >= _WHOLE_EDGE:
            return (edge, edge), "squash", []
        return (edge, edge), "crop", margin_notes(_scaled(tree), (edge, edge), "crop")
    if (whole := _pair(size)) is not None and not (isinstance(size, dict) and "shortest_edge" in size):
        return whole, "squash", []
    return None, None, ["preprocessor_config.json does not fix height and width"]


def _cut_out(tree: dict[str, Any]) -> tuple[tuple[int, int] | None, Literal["squash", "crop"], list[str]]:
    """As `_sides`, where the middle of a picture was cut out."""
    way: Literal["squash", "crop"] = "squash" if _is_squashed(tree) else "crop"
    cut = _pair(tree.get("crop_size"))
    if cut is None:
        return None, way, ["preprocessor_config.json cuts out the middle and does not say its crop_size"]
    return cut, way, [] if tree.get("do_resize") is False else margin_notes(_scaled(tree), cut, way)


def margin_notes(scaled: tuple[int, int] | None, cut: tuple[int, int], resize: str) -> list[str]:
    """A sentence for the owner where a margin was cut off, which stays on the picture here; else none.

    Args:
        scaled: height and width to which a picture was scaled; None where they are not known.
        cut: height and width that were cut out of it.
        resize: way in which a picture was scaled: squash, crop or pad.
    """
    if scaled is None or (scaled[0] <= cut[0] and scaled[1] <= cut[1]):
        return []
    done = {
        "squash": f"pictures were squashed to {scaled[0]}x{scaled[1]}",
        "crop": f"the short side was scaled to {min(scaled)}",
        "pad": f"pictures were scaled to fit into {scaled[0]}x{scaled[1]}",
    }
    share = f"things look {min(cut) / min(scaled):.2f} times as large"
    return [f"{done[resize]}, then the middle was cut out ({cut[0]}x{cut[1]}): the margin stays here, so {share}"]


def _is_squashed(tree: dict[str, Any]) -> bool:
    """Whether both sides were scaled by themselves before the middle was cut out."""
    size = tree.get("size")
    if isinstance(size, int):  # the short side, but for processors that take it as both
        return str(tree.get("image_processor_type") or tree.get("feature_extractor_type")).startswith(_SQUARE)
    return _pair(size) is not None and not (isinstance(size, dict) and "shortest_edge" in size)


def _scaled(tree: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width to which a picture was scaled before the middle was cut out; twice the short side's."""
    edge, share = _edge(tree.get("size")), tree.get("crop_pct")
    if edge is None:
        return _pair(tree.get("size"))
    if str(tree.get("image_processor_type") or tree.get("feature_extractor_type")).startswith("Levit"):
        edge = int(256 / 224 * edge)
    elif isinstance(share, int | float) and 0 < share <= 1:
        edge = int(edge / share)
    return edge, edge


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    elif isinstance(size, int):
        size = [size, size]
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    return (size[0], size[1]) if whole else None


def _edge(size: Any) -> int | None:
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    return edge if isinstance(edge, int) and edge > 0 else None


def _normalisation(tree: dict[str, Any], channels: int) -> Normalisation | None:
    """(x factor - m) / s of pixels x in 0..255, written as (x / 255 - mean) / std."""
    factor = 1.0 if tree.get("do_rescale") is False else float(tree.get("rescale_factor", 1 / 255))
    if tree.get("do_normalize") is False:
        mean, std = [0.0] * channels, [1.0] * channels
    elif "image_mean" in tree and "image_std" in tree:
        mean, std = tree["image_mean"], tree["image_std"]
    else:
        return None
    mean, std = ([value] * channels if isinstance(value, int | float) else value for value in (mean, std))
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std must have {channels} values")
    scale = 255 * factor
    return Normalisation(mean=tuple(_round(m / scale) for m in mean), std=tuple(_round(s / scale) for s in std))


def _round(value: float) -> float:
    """Without the dust of 255 / 255.00000001."""
    return float(f"{value:.9g}")
