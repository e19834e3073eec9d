# SPDX-License-Identifier: Apache-2.0
"""Networks by name: this project's, torchvision's and timm's, built without weights, and told apart by key shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.models.registry import ARCHITECTURES, build_classifier

__all__ = ["LIBRARIES", "Fit", "Library", "Plan", "fit", "libraries_of", "loaded", "nearest"]

Shapes = dict[str, tuple[int, ...]]

_SIDES = (32, 28, 8, 16, 64)  # tried for this project's networks, where the owner does not say the image's shape
_UNLIKELY = 1009  # outputs of a network built to see which of its tensors have as many rows as it has outputs


@dataclass(frozen=True)
class Plan:
    """What a network is built from, beside its name.

    Attributes:
        outputs: number of outputs.
        channels: number of channels of an image.
        sides: height and width of an image; None where they are not known.
        width: width of a network of `models.registry`.
    """

    outputs: int
    channels: int = 3
    sides: tuple[int, int] | None = None
    width: int = 16


@dataclass(frozen=True)
class Library:
    """Where networks come from.

    Attributes:
        name: name in front of an architecture's, as in "torchvision/resnet18".
        kind: teacher format of its networks.
        names: function that gives the names of its networks.
        build: function that makes a network; its weights may have no values yet.
    """

    name: str
    kind: str
    names: Callable[[], tuple[str, ...]]
    build: Callable[[str, Plan], nn.Module]


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


def _zoo(name: str, plan: Plan) -> nn.Module:
    return build_classifier(name, plan.outputs, (plan.channels, *(plan.sides or (32, 32))), plan.width, seed=0)


def _torchvision_names() -> tuple[str, ...]:
    import torchvision  # noqa: PLC0415 - takes its time

    # these two change their input where they were made from pretrained weights, and their state dicts do not say so
    unsaid = {"googlenet", "inception_v3"}
    return tuple(name for name in torchvision.models.list_models(module=torchvision.models) if name not in unsaid)


def _torchvision(name: str, plan: Plan) -> nn.Module:
    import torchvision  # noqa: PLC0415 - takes its time

    sized: dict[str, Any] = {}
    if plan.sides and name.startswith("vit_"):
        sized = {"image_size": plan.sides[0]}
    elif plan.sides and name == "maxvit_t":
        sized = {"input_size": plan.sides}

    def make() -> nn.Module:
        network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=plan.outputs, **sized)
        if plan.channels != 3:
            _replace_first_convolution(network, plan.channels)
        return network

    return _without_values(make)


def _without_values(make: Callable[[], nn.Module]) -> nn.Module:
    """A network that takes no memory yet, where it can be built so."""
    try:
        with torch.device("meta"):
            network = make()
    except NotImplementedError:  # it computes with tensors while it is built
        return make()
    held = network.state_dict().keys()
    return network if all(name in held for name, _ in network.named_buffers()) else make()


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Lets a network take other images than colour ones, as owners do it: by a new first layer."""
    for path, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent, _, own = path.rpartition(".")
            kept = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}
            new = nn.Conv2d(channels, layer.out_channels, bias=layer.bias is not None, **kept)
            setattr(network.get_submodule(parent), own, new)
            return


def _timm_names() -> tuple[str, ...]:
    return tuple(_timm_package().list_models())


def _timm(name: str, plan: Plan) -> nn.Module:
    make = _timm_package().create_model
    return _without_values(
        lambda: make(name, pretrained=False, num_classes=plan.outputs, in_chans=plan.channels, scriptable=False)
    )


def _timm_package() -> Any:
    try:
        import timm  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ManifestError(
            explain("architecture", "timm", "needs timm", "install it: pip install 'fedcpsc[timm]'")
        ) from error
    return timm


ZOO = Library("fedcpsc", "torch", lambda: ARCHITECTURES, _zoo)
TORCHVISION = Library("torchvision", "torchvision", _torchvision_names, _torchvision)
TIMM = Library("timm", "timm", _timm_names, _timm)
LIBRARIES = {library.name: library for library in (ZOO, TORCHVISION, TIMM)}


def libraries_of(architecture: str) -> list[tuple[Library, str]]:
    """Libraries that have a network of this name, with its name there; timm's only where it is named.

    Args:
        architecture: name of a network, such as "resnet18" or "torchvision/resnet18".
    """
    prefix, slash, name = architecture.partition("/")
    chosen = [LIBRARIES[prefix]] if slash and prefix in LIBRARIES else [ZOO, TORCHVISION]
    name = name if slash and prefix in LIBRARIES else architecture
    return [(library, name) for library in chosen if name in library.names()]


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
    own = _shapes(library.build(name, replace(plan, outputs=_UNLIKELY)))
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
        own = _shapes(library.build(name, plan))
    else:  # only the head differs: to build the largest networks once more would take seconds
        own |= {key: (plan.outputs, *own[key][1:]) for key in heads}
    return plan if _compared(own) == _compared(shapes) else None


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
    own = _compared(_shapes(library.build(name, Plan(outputs=_UNLIKELY))))
    same = sum(shape == own.get(key) for key, shape in found.items())
    named = sum(key in own for key in found)
    return (same + 0.2 * named) / len(own.keys() | found.keys())


def _shapes(network: nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _compared(shapes: Shapes) -> Shapes:
    """The shapes that count: old checkpoints have no counters of batches."""
    return {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
