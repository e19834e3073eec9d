# SPDX-License-Identifier: Apache-2.0
"""Which network weights are for: networks told apart by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedcpsc.errors import ConfigError
from fedcpsc.models.libraries import TORCHVISION, ZOO, Library, Plan, skeleton

__all__ = ["Fit", "fit", "head_keys", "loaded", "miscast", "nearest", "nearest_in_words"]

Shapes = dict[str, tuple[int, ...]]

_SIDES = (32, 28, 8, 16, 64)  # tried for this project's networks, where the owner does not say the image's shape
_UNLIKELY = 1009  # outputs of a network built to see which of its tensors have as many rows as it has outputs


@dataclass(frozen=True)
class Fit:
    """A network that a state dict fits.

    Attributes:
        library: where the network comes from.
        name: name of the network there.
        plan: what it is built from; sides only where its weights depend on them.
    """

    library: Library
    name: str
    plan: Plan


def fit(library: Library, name: str, state: Mapping[str, Tensor], plan: Plan) -> Fit | None:
    """The network whose tensors have the names and shapes of a state dict; None where they differ.

    Args:
        library: where the network comes from.
        name: name of the network there.
        state: tensors by name.
        plan: what is known; outputs and channels are read from the state dict.
    """
    for sides in [plan.sides] if plan.sides or library is not ZOO else [(side, side) for side in _SIDES]:
        try:
            found = _fit(library, name, state, replace(plan, sides=sides))
        except (ConfigError, RuntimeError, ValueError, AssertionError):  # no such network for such images
            continue
        if found is not None:
            return Fit(library, name, found)
    return None


def _fit(library: Library, name: str, state: Mapping[str, Tensor], plan: Plan) -> Plan | None:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    own = _shapes(skeleton(library, name, replace(plan, outputs=_UNLIKELY)))
    heads = [key for key, shape in own.items() if shape[:1] == (_UNLIKELY,)]
    first = next((key for key, shape in own.items() if len(shape) == 4), None)
    needed = heads if first is None else [*heads, first]
    if not heads or any(len(shapes.get(key, ())) != len(own[key]) for key in needed):
        return None
    plan = replace(plan, outputs=shapes[heads[0]][0])
    if first is not None:
        width = shapes[first][0] if library is ZOO else plan.width
        plan = replace(plan, channels=shapes[first][1], width=width)
    if library is ZOO or plan.channels != 3:
        own = _shapes(skeleton(library, name, plan))
    else:  # only the head differs: to build the largest networks once more would take seconds
        own |= {key: (plan.outputs, *own[key][1:]) for key in heads}
    return plan if _compared(own) == _compared(shapes) else None


def head_keys(library: Library, name: str, plan: Plan) -> frozenset[str]:
    """Names of the tensors that have as many rows as the network has outputs, whatever that number is.

    Args:
        library: where the network comes from.
        name: name of the network there.
        plan: what it is built from.
    """
    own = _shapes(skeleton(library, name, replace(plan, outputs=_UNLIKELY)))
    return frozenset(key for key, shape in own.items() if shape[:1] == (_UNLIKELY,))


def loaded(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with the state dict's own tensors as its weights: no second copy of them is made.

    Args:
        network: network, its weights perhaps without values.
        state: tensors by name, which fit it.

    Raises:
        RuntimeError: where they do not fit.
    """
    whole = {name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in whole:
            whole[name] = torch.zeros_like(tensor, device="cpu")
    network.load_state_dict(whole, assign=True)
    return network


def miscast(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What is wrong with a tensor that no weight can be: whole numbers, as of a quantised network, or complex ones.

    Args:
        state: tensors by name.
        wanted: tensors of the network by name, perhaps without values.

    Returns:
        the tensor's name and what it holds; None where there is none.
    """
    for name, tensor in wanted.items():
        given = state.get(name)
        if given is not None and tensor.is_floating_point() and not given.is_floating_point():
            return f"{name} holds {str(given.dtype).removeprefix('torch.')}, must hold floating-point numbers"
    return None


def nearest(state: Mapping[str, Tensor], count: int = 3) -> list[str]:
    """Networks of this project and of torchvision, those first that have most tensors of the same name and shape.

    Of torchvision's families, the smallest network is compared first; then all of the two families that are nearest.
    """
    found = _compared({key: tuple(tensor.shape) for key, tensor in state.items()})
    scores = {f"{ZOO.name}/{name}": _likeness(ZOO, name, found) for name in ZOO.names()}
    families = _torchvision_families()
    smallest = {names[0]: _likeness(TORCHVISION, names[0], found) for names in families}
    for names in sorted(families, key=lambda names: -smallest[names[0]])[:2]:
        scores |= {f"{TORCHVISION.name}/{name}": _likeness(TORCHVISION, name, found) for name in names}
    return sorted(scores, key=lambda name: -scores[name])[:count]


def nearest_in_words(state: Mapping[str, Tensor]) -> str:
    """The three nearest networks, for a message."""
    names = nearest(state)
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _torchvision_families() -> list[list[str]]:
    """torchvision's networks by the file that defines them, each family from its smallest network to its largest."""
    import torchvision  # noqa: PLC0415 - takes its time

    families: dict[str, list[str]] = {}
    for name in TORCHVISION.names():
        families.setdefault(torchvision.models.get_model_builder(name).__module__, []).append(name)
    sizes = {
        name: torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"] for name in TORCHVISION.names()
    }
    return [sorted(names, key=lambda name: sizes[name]) for names in families.values()]


def _likeness(library: Library, name: str, found: Shapes) -> float:
    """How much of a network's tensors have the names, and the shapes, of those that were found, >= 0."""
    if name.startswith("regnet_") and name.endswith(("16gf", "32gf", "128gf")):
        return 0.0  # they cannot be built without gigabytes of values
    own = _compared(_shapes(skeleton(library, name, Plan(outputs=_UNLIKELY))))
    same = sum(shape == own.get(key) for key, shape in found.items())
    named = sum(key in own for key in found)
    return (same + 0.2 * named) / len(own.keys() | found.keys())


def _shapes(network: nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _compared(shapes: Shapes) -> Shapes:
    """The shapes that count: old checkpoints have no counters of batches."""
    return {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
