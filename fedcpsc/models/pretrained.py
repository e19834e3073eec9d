# SPDX-License-Identifier: Apache-2.0
"""Public pretrained weights from a file: all of a network, but its head where that is for other classes.

Nothing is downloaded. Weights of another network are refused, with the networks that they look like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.libraries import ZOO, Library, Plan
from fedcpsc.models.likeness import head_keys, miscast, nearest_in_words
from fedcpsc.models.state_file import NotAState, read_state_file

__all__ = ["Match", "Pretrained", "match", "read_pretrained", "take"]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """The weights of a file.

    Attributes:
        state: tensors by name.
        path: path of the file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        key: dotted key of the configuration that names the file, for messages.
    """

    state: Mapping[str, Tensor]
    path: Path
    sha256: str
    key: str


@dataclass(frozen=True)
class Match:
    """What of a network's weights is in a file.

    Attributes:
        taken: names of the tensors that are taken from it.
        left: names of the tensors that stay at their initialisation: those of the head.
        shapes: shapes that the file has for these, by name; without those that it lacks.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def in_words(self, *, frozen: bool = False) -> str:
        """A sentence about it.

        Args:
            frozen: whether all but the head stays as it is (`models.frozen_body`).
        """
        taken = f"{len(self.taken)} tensors are taken"
        if not self.left:
            return f"{taken}: all of the network's, its head's included"
        rows = sorted({shape[0] for shape in self.shapes.values()})
        why = f"in the file it is for {', '.join(map(str, rows))} classes" if rows else "the file has none"
        begins = "begins at zero" if frozen else "stays at its initialisation"
        return f"{taken}; the head ({', '.join(self.left)}) {begins}: {why}"


def read_pretrained(path: str, key: str = "student.weights") -> Pretrained:
    """The weights of a file, or of a folder of the Hugging Face hub that holds one.

    Args:
        path: path of the file, or of the folder.
        key: dotted key of the configuration that names it, for messages.

    Raises:
        ConfigError: it cannot be read, holds anything but one state dict, or numbers that are not finite.
    """
    try:
        state, file = read_state_file(Path(path).expanduser())
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        constraint = f"cannot be read ({error.strerror})"
        remedy = "check the path, and that this user may read it; weights are never downloaded"
        raise ConfigError(explain(key, path, constraint, remedy)) from error
    except NotAState as error:
        raise ConfigError(explain(key, path, error.constraint, error.remedy)) from error
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.to(torch.float32).isfinite().all()):
            constraint = f"{name} holds numbers that are not finite in float32"
            raise ConfigError(explain(key, path, constraint, "use other weights"))
        if name.endswith("running_var") and bool((value < 0).any()):
            raise ConfigError(explain(key, path, f"{name} holds negative variances", "use other weights"))
    return Pretrained(state, file, digest, key)


def match(
    weights: Pretrained, network: nn.Module, library: Library, name: str, plan: Plan, section: str = "student"
) -> Match:
    """What of a network's weights is in the file.

    Args:
        weights: weights of the file.
        network: network; only names and shapes of its tensors are looked at.
        library: where the network comes from.
        name: name of the network there.
        plan: what it is built from.
        section: section of the configuration that names network and file, "student" or "teachers".

    Raises:
        ConfigError: the weights are of another network.
    """
    found = {key: tuple(value.shape) for key, value in weights.state.items()}
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    counted = {key: shape for key, shape in own.items() if not key.endswith("num_batches_tracked") or key in found}
    other = [key for key, shape in counted.items() if found.get(key) != shape]
    _check_kinds(weights, network, section)
    foreign = [key for key in found if key not in own]
    heads = head_keys(library, name, plan) if other else frozenset()
    wrong = [key for key in other if key not in heads]
    if not wrong and not foreign:
        left = tuple(other)
        taken = tuple(key for key in counted if key not in other)
        return Match(taken, left, {key: found[key] for key in left if key in found})
    architecture = name if library.name == "fedcpsc" else f"{library.name}/{name}"
    constraint = f"does not hold the weights of {architecture} ({_difference(wrong, foreign, found, own)})"
    near = nearest_in_words(weights.state)
    remedy = f"they look like those of {near}: set {section}.architecture to theirs"
    if not foreign and all(key in found for key in wrong):
        what = f"{section}.width and data.image_size" if library is ZOO else "data.image_size"
        remedy = f"its tensors have these names and other shapes: set {what} to what the file was made for"
    raise ConfigError(explain(weights.key, str(weights.path), constraint, remedy))


def _check_kinds(weights: Pretrained, network: nn.Module, section: str) -> None:
    """Does nothing where the file has no whole numbers in the place of weights, as a quantised network's has.

    Raises:
        ConfigError: it has.
    """
    if constraint := miscast(weights.state, network.state_dict()):
        remedy = f"use weights that are not quantised, for {section}.architecture as it is"
        raise ConfigError(explain(weights.key, str(weights.path), constraint, remedy))


def take(weights: Pretrained, network: nn.Module, matched: Match) -> None:
    """Gives a network the weights that `match` found for it."""
    network.load_state_dict({key: weights.state[key] for key in matched.taken}, strict=False)


def _difference(
    wrong: list[str], foreign: list[str], found: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]
) -> str:
    """The first tensor that does not fit, and how many do not."""
    count = len(wrong) + len(foreign)
    key = (wrong or foreign)[0]
    if key not in own:
        first = f"{key} is foreign to it"
    elif key not in found:
        first = f"{key} is missing"
    else:
        first = f"{key} is {list(found[key])}, must be {list(own[key])}"
    return first + (f", and {count - 1} more do not fit" if count > 1 else "")
