# SPDX-License-Identifier: Apache-2.0
"""The options that a network of timm was built with, in the metadata of its weights: one hash covers both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.state_dict import metadata_of, with_metadata

__all__ = ["options_of", "with_options"]

_KEY = "timm_model_args"  # timm's config.json calls them model_args


def options_of(weights: bytes, name: str) -> dict[str, Any]:
    """The options in a safetensors file's metadata; empty where it has none.

    Args:
        weights: content of the file.
        name: what the file is called in messages.

    Raises:
        ManifestError: where they cannot be read.
    """
    text = metadata_of(weights).get(_KEY)
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        options = None
    if not isinstance(options, dict):
        shown = f"has {_KEY} in its metadata that are no JSON object"
        raise ManifestError(explain("weights", name, shown, "adopt the model again"))
    return options


def with_options(weights: bytes, options: Mapping[str, Any]) -> bytes:
    """A safetensors file with these options in its metadata; unchanged where there are none.

    Raises:
        ManifestError: where it is no safetensors file.
    """
    if not options:
        return weights
    return with_metadata(weights, metadata_of(weights) | {_KEY: json.dumps(dict(options), sort_keys=True)})
