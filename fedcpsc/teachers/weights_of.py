# SPDX-License-Identifier: Apache-2.0
"""Weights without their network: which network of a library they are for, and what of it can be read from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.models.libraries import TIMM, Plan, libraries_of, skeleton
from fedcpsc.models.likeness import Fit, fit, nearest_in_words
from fedcpsc.teachers.content import Content
from fedcpsc.teachers.format import FORMATS
from fedcpsc.teachers.network_options import options_of, with_options
from fedcpsc.teachers.recognised import Recognised, Source
from fedcpsc.teachers.said_in_file import with_entries, with_student_hints
from fedcpsc.teachers.state_dict import State, as_safetensors, misfit, read_checkpoint
from fedcpsc.teachers.trying import tried

__all__ = ["recognise_weights"]


def recognise_weights(source: Source, options: Mapping[str, Any] | None = None) -> Recognised:
    """What a state dict is: the network that its owner names, where names and shapes of all tensors agree.

    Args:
        source: file of the weights, with its owner's hints.
        options: arguments of timm's that its network was built with, beside those in the file's metadata.

    Raises:
        ManifestError: where the owner names no network, an unknown one, or one that the tensors do not fit; the message
            names the three that are nearest by their tensors.
    """
    state, notes, entries = read_checkpoint(source.path, Content(source.content))
    owner_says, source = source.hints.image_shape, with_student_hints(source, entries)
    hints, shape = source.hints, source.hints.image_shape
    plain = source.path.read_bytes() if source.content is Content.SAFETENSORS else b""
    options = options_of(plain, str(source.path)) | dict(options or {})
    found = _chosen(source, state, options)
    if owner_says is None and shape is not None:
        shape = (found.plan.channels, *shape[1:])  # of a student that takes a grey image's channel several times
    if shape is not None and shape[0] != found.plan.channels:
        shown = f"the weights are for {found.plan.channels} channels"
        raise ManifestError(explain("image_shape", shape, shown, "say the shape as the model has it"))
    weights = plain if plain and not notes else as_safetensors(state)
    if options and found.library is not TIMM:
        shown = f"was built by timm with {', '.join(sorted(options))}, and the architecture is {found.library.name}'s"
        raise ManifestError(explain("model", str(source.path), shown, "name the architecture as timm/NAME"))
    if found.plan.options:
        weights = with_options(weights, options)
        said = ", ".join(f"{key}={value!r}" for key, value in sorted(options.items()))
        notes.append(f"the network is built as its model_args say: {said}")
    del state, plain
    facts = Recognised(
        kind=found.library.kind,
        architecture=found.name,
        width=found.plan.width if found.library.kind == "torch" else 1,
        outputs=found.plan.outputs,
        image_shape=shape,
        channels=found.plan.channels,
        normalisation=hints.normalisation,
        notes=tuple(notes),
        weights=weights,
    )
    seen = tried(facts, source, FORMATS.get(found.library.kind).load)
    return with_entries(seen, source, entries, weights_alone=True)


def _chosen(source: Source, state: State, options: Mapping[str, Any]) -> Fit:
    """The network that is meant, with the options where it is timm's.

    Raises:
        ManifestError: where none is, or the tensors are of another.
    """
    hints, where = source.hints, str(source.path)
    if hints.architecture is None:
        shown = (
            f"holds weights alone, of a network like {nearest_in_words(state)}, and weights do not say what is computed"
        )
        raise ManifestError(explain("model", where, shown, "name the architecture; or export the model to ONNX"))
    try:
        candidates = libraries_of(hints.architecture)
    except ConfigError as error:  # timm is not installed
        raise ManifestError(str(error)) from error
    if not candidates:
        shown = f"is unknown here; the weights look like {nearest_in_words(state)}"
        remedy = "name one of those, or timm/NAME (pip install 'fedcpsc[timm]'); or export the model to ONNX"
        raise ManifestError(explain("architecture", hints.architecture, shown, remedy))
    sides = None if hints.image_shape is None else hints.image_shape[1:]
    plan = Plan(outputs=hints.outputs or 2, sides=sides, width=hints.width or 16)
    plans = {library.name: replace(plan, options=options) if library is TIMM else plan for library, _ in candidates}
    fits = [
        found for library, name in candidates if (found := fit(library, name, state, plans[library.name])) is not None
    ]
    if len(fits) == 1 and hints.width in (None, fits[0].plan.width):
        return fits[0]
    if len(fits) > 1:
        names = " and ".join(f"{each.library.name}/{each.name}" for each in fits)
        raise ManifestError(explain("architecture", hints.architecture, f"is {names}, which both fit", "name one"))
    library, name = candidates[-1]
    try:
        plain = skeleton(library, name, plans[library.name]).state_dict()
    except ConfigError as error:  # there is no such network for such images, or with these options
        raise ManifestError(str(error)) from error
    reason = str(misfit(state, plain, hints.architecture, where)).rpartition("; ")[0]
    remedy = f"the weights look like {nearest_in_words(state)}: name the right one, with the image's shape and width"
    raise ManifestError(f"{reason}; {remedy}")
