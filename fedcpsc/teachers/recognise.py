# SPDX-License-Identifier: Apache-2.0
"""A model file of the owner's own: which teacher format it is, and what can be found out about it.

Formats are told apart by content, never by a file's name. What the file does not say and a trial does not show is None
in the outcome, for the owner to be asked; what is doubtful is refused. Nothing is written.
"""

from __future__ import annotations

from pathlib import Path

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.content import Content, content_of
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.recognised import Hints, Recognised, Source

__all__ = ["Hints", "Recognised", "recognise"]

_FORMAT_OF = {
    Content.ONNX: "onnx",
    Content.SAFETENSORS: "torch",  # or torchvision, or timm: the architecture says which
    Content.TORCH_SAVE: "torch",
    Content.TORCH_EXPORT: "torch_export",
    Content.TORCHSCRIPT: "torchscript",
    Content.HUGGING_FACE: "huggingface",
}


_WEIGHTS_ALONE = ("torch", "torchvision", "timm")


def recognise(path: Path, hints: Hints | None = None) -> Recognised:
    """What a model on the disk is.

    Args:
        path: path of the model's file, or of its folder in Hugging Face form.
        hints: what the owner says of it; what the owner does not say is found out where possible.

    Raises:
        ManifestError: where it is no model that can become a teacher, does not fit what the owner says, or where what
            it needs is not installed; the message says why and what to do.
    """
    hints = hints or Hints()
    if hints.entry_point is not None:
        name, content = "python", "anything"
    else:
        content = content_of(path)
        name = _FORMAT_OF[content]
    entry = FORMATS.get(name)
    if entry.recognise is None:
        raise ManifestError(explain("model", str(path), f"is {content}, which cannot be adopted", "train it here"))
    try:
        found = entry.recognise(Source(path, content, hints))
    except OSError as error:
        remedy = "check the path, and that this user may read it"
        raise ManifestError(explain("model", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    _check_all_apply(hints, found)
    return found


def _check_all_apply(hints: Hints, found: Recognised) -> None:
    """Does nothing where all that the owner says is of use for such a model.

    Raises:
        ManifestError: where something is not: the owner may mean another file than this one.
    """
    applies = {
        "architecture": (hints.architecture, found.kind in _WEIGHTS_ALONE or hints.architecture == found.architecture),
        "width": (hints.width, found.kind == "torch"),
        "output": (hints.output, found.kind == "onnx"),
    }
    for what, (said, of_use) in applies.items():
        if said is not None and not of_use:
            shown = f"means nothing for a model of kind {found.kind}"
            raise ManifestError(explain(what, said, shown, "leave it out, or check that this is the file you mean"))
